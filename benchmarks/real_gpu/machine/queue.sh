# queue.sh GPUS CORES JOB...: the jobs in turn on these GPUs and cores, without those that are done.
. benchmarks/real_gpu/machine/environment.sh
export CUDA_VISIBLE_DEVICES=$1 cores=$2
export VLLM_CACHE_ROOT=$root/cache # what one card's server compiled, another's loads
shift 2
for job; do
    [ -e "$results/$job.done" ] && continue
    echo "$job begins on GPU $CUDA_VISIBLE_DEVICES, cores $cores: $(date +%T)"
    taskset -c "$cores" bash "$here/jobs/$job.sh" >>"$results/$job.job.log" 2>&1 </dev/null
    code=$?
    [ $code = 0 ] && touch "$results/$job.done"
    echo "$job ends with exit code $code: $(date +%T)"
done
