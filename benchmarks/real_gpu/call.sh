# On the GPU machine: call.sh SECONDS. Start the plan's jobs, or watch those that a call before left
# running, for so long; then put what there is into $OUT.
# PLAN is all (default), singles (no job of both GPUs) or both (only those).
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
if ! lives watch; then
    setsid nohup python3 benchmarks/real_gpu/machine/watch_gpus.py "$results/watch.csv" \
        >>"$results/watch.log" 2>&1 </dev/null &
    echo $! >"$root/watch.pid"
fi
if ! lives plan; then
    echo "the plan begins at $(date +%T)"
    setsid nohup bash benchmarks/real_gpu/machine/plan.sh "${PLAN:-all}" \
        >>"$results/plan.log" 2>&1 </dev/null &
    echo $! >"$root/plan.pid"
fi
while [ "$(date +%s)" -lt "$until" ] && lives plan; do sleep 1; done
date +%T
lives plan && echo "jobs are still running" || echo "the plan has ended"
cat "$results/plan.log"
for log in "$results"/*.job.log; do
    echo "--- $log"
    tail -c 1500 "$log"
done
python3 benchmarks/real_gpu/machine/keep.py keep "$results" "$OUT"
