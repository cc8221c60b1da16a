# Source this on the GPU machine, in the project's folder.
root=${TUNER_GPU_ROOT:-/tmp/tuner-gpu}
results=$root/results
here=benchmarks/real_gpu
mkdir -p "$root/bin" "$root/spaces"
# Studies store these paths, so they are the same for every version of the project.
[ -e "$root/llama-3.1-8b" ] || cp -r $here/llama-3.1-8b "$root/"
cp $here/jobs/*.yaml "$root/spaces/"
[ -e "$root/bin/vllm" ] || { # its first line names its Python, for the fork servers
    { echo "#!$(python3 -c 'import sys; print(sys.executable)')" && cat $here/machine/packed_vllm.py; } >"$root/bin/vllm.new"
    chmod +x "$root/bin/vllm.new" && mv "$root/bin/vllm.new" "$root/bin/vllm"
}
export PYTHONPATH="$root/site:$PWD" PATH="$root/bin:$PATH" PYTHONUNBUFFERED=1
unset PYTHONDONTWRITEBYTECODE
export TUNER_VLLM="$root/bin/vllm" TUNER_STATE_DIR="$root/state"
export CUDA_DEVICE_ORDER=PCI_BUS_ID HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
export VLLM_USE_FLASHINFER_SAMPLER=0 # FlashInfer is not packed
# NVLink multicast can put a shared host's GPUs out of service: never use it.
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 NVSHMEM_DISABLE_NVLS=1
export VLLM_ALLREDUCE_USE_SYMM_MEM=0 VLLM_USE_NCCL_SYMM_MEM=0
