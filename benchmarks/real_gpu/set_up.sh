# Source this on the GPU machine, in the repository's root: unpacks what pack.py made.
mkdir -p /tmp/tuner-gpu/bin
tar -xJf .gpu/site.tar.xz -C /tmp/tuner-gpu
printf '#!/bin/sh\nexec python3 -m vllm.entrypoints.cli.main "$@"\n' >/tmp/tuner-gpu/bin/vllm
chmod +x /tmp/tuner-gpu/bin/vllm
