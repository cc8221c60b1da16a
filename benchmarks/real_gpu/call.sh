# On the GPU machine: call.sh SECONDS. Start the jobs, or watch those that a call before left running,
# for so long; then put what there is into $OUT.
# PLAN is singles (default: the jobs of one GPU each), or both (those that need two).
bundle=$(cd "$(dirname "$0")" && pwd)
root=${TUNER_GPU_ROOT:-/tmp/tuner-gpu}
results=$root/results
until=$(($(date +%s) + $1))
mkdir -p "$root" "$results"
if [ ! -e "$root/site.done" ]; then
    rm -rf "$root/site" && tar -xJf "$bundle/site.tar.xz" -C "$root" && touch "$root/site.done"
fi
src=$root/src-$(cksum <"$bundle/src.tar.xz" | cut -d' ' -f1)
if [ ! -e "$src/call.done" ]; then # another version of the project may still be running
    mkdir -p "$src" && tar -xJf "$bundle/src.tar.xz" -C "$src" && touch "$src/call.done"
fi
cp -n "$bundle"/done/*.done "$results/" 2>/dev/null # of a machine that was lost
cd "$src" || exit
. benchmarks/real_gpu/machine/environment.sh

lives() { kill -0 "$(cat "$root/$1.pid" 2>/dev/null)" 2>/dev/null; }
begin() { # NAME COMMAND...: in a session of its own, unless it runs already
    local name=$1
    shift
    lives "$name" && return
    setsid nohup "$@" >>"$results/$name.log" 2>&1 </dev/null &
    echo $! >"$root/$name.pid"
}
under_way() { lives gpu-0 || lives gpu-1 || lives both; }

gpus=$(python3 -c 'import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount())')
cores=$(nproc) half=$(($(nproc) / 2)) queue=$here/machine/queue.sh
on_first="night clean" on_second="slow busy same"
begin watch python3 $here/machine/watch_gpus.py "$results/watch.csv"
if [ "${PLAN:-singles}" = both ]; then
    under_way || begin both bash $queue 0,1 "0-$((cores - 1))" parallel
elif [ "$gpus" -gt 1 ]; then
    begin gpu-0 bash $queue 0 "0-$((half - 1))" $on_first
    begin gpu-1 bash $queue 1 "$half-$((cores - 1))" $on_second
else
    begin gpu-0 bash $queue 0 "0-$((cores - 1))" $on_first $on_second
fi
while [ "$(date +%s)" -lt "$until" ] && under_way; do sleep 1; done
for name in watch gpu-0 gpu-1 both; do
    lives $name && echo "$name is running, $(date +%T)"
done
cat "$results"/gpu-*.log "$results/both.log" 2>/dev/null
tail -n 3 "$results/watch.csv" "$results/watch.log"
for log in "$results"/*.job.log; do
    echo "--- $log"
    tail -c 1500 "$log"
done
python3 $here/machine/keep.py keep "$results" "$OUT"
