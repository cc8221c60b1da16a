# Source this on the GPU machine: what was unpacked comes first.
export PYTHONPATH="/tmp/tuner-gpu/site:$PWD" PATH="/tmp/tuner-gpu/bin:$PATH"
export TUNER_VLLM=/tmp/tuner-gpu/bin/vllm HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
export VLLM_USE_FLASHINFER_SAMPLER=0 VLLM_CACHE_ROOT=/tmp/tuner-gpu/cache PYTHONUNBUFFERED=1
