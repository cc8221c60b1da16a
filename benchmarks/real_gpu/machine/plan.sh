# plan.sh all|singles|both: the jobs of each GPU beside each other, then those of both together.
. benchmarks/real_gpu/machine/environment.sh
queue=$here/machine/queue.sh
gpus=${TUNER_GPU_COUNT:-$(nvidia-smi -L | wc -l)}
cores=$(nproc) half=$(($(nproc) / 2))
on_first="night clean" on_second="slow busy same"
if [ "$1" != both ]; then
    if [ "$gpus" -gt 1 ]; then
        bash $queue 0 "0-$((half - 1))" $on_first &
        first=$!
        bash $queue 1 "$half-$((cores - 1))" $on_second
        wait $first
    else
        bash $queue 0 "0-$((cores - 1))" $on_first $on_second
    fi
fi
if [ "$1" != singles ] && [ "$gpus" -gt 1 ]; then
    bash $queue 0,1 "0-$((cores - 1))" parallel
fi
