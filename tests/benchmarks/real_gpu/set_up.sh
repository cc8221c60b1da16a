# Source this on the GPU machine, in the repository's root: unpacks what pack.py made.
mkdir -p /tmp/tuner-gpu/bin
tar -xJf .gpu/site.tar.xz -C /tmp/tuner-gpu
printf '#!/bin/sh\nexec python3 -m vllm.entrypoints.cli.main "$@"\n' >/tmp/tuner-gpu/bin/vllm
chmod +x /tmp/tuner-gpu/bin/vllm
export PYTHONPATH="/tmp/tuner-gpu/site:$PWD" PATH="/tmp/tuner-gpu/bin:$PATH"
export TUNER_VLLM=/tmp/tuner-gpu/bin/vllm HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
export VLLM_USE_FLASHINFER_SAMPLER=0 VLLM_CACHE_ROOT=/tmp/tuner-gpu/cache PYTHONUNBUFFERED=1
