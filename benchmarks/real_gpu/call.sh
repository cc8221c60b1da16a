# On the GPU machine: call.sh SECONDS STAGE...: run the stages in turn, or go on with the one that a
# call before left running, for so long; then put what there is into $OUT.
# Stages: night, parallel (each on all GPUs), singles (jobs of one GPU each, side by side).
bundle=$(cd "$(dirname "$0")" && pwd)
root=${TUNER_GPU_ROOT:-/tmp/tuner-gpu}
results=$root/results
until=$(($(date +%s) + $1))
shift
mkdir -p "$root" "$results"
src=$root/src-$(cksum <"$bundle/src.tar.xz" | cut -d' ' -f1)
if [ ! -e "$src/call.done" ]; then # another version of the project may still be running
    mkdir -p "$src" && tar -xJf "$bundle/src.tar.xz" -C "$src" && touch "$src/call.done"
fi
cp -n "$bundle"/restored/* "$results/" 2>/dev/null # of a machine that was lost
cd "$src" || exit
. benchmarks/real_gpu/machine/environment.sh
[ -e "$root/ready.done" ] || bash $here/machine/make_ready.sh "$bundle" 2>&1 | tee "$results/ready.log"

lives() { kill -0 "$(cat "$root/$1.pid" 2>/dev/null)" 2>/dev/null; }
begin() { # NAME COMMAND...: in a session of its own, unless it runs already
    local name=$1
    shift
    lives "$name" && return
    setsid "$@" >>"$results/$name.log" 2>&1 </dev/null &
    echo $! >"$root/$name.pid"
}
under_way() { lives all || lives gpu-0 || lives gpu-1; }
watch_to_the_end() { while [ "$(date +%s)" -lt "$until" ] && under_way; do sleep 1; done; }

gpus=$(python3 -c 'import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount())')
cores=$(getconf _NPROCESSORS_ONLN) half=$((cores / 2)) queue=$here/machine/queue.sh
on_first="checks clean" on_second="alone slow busy same"
begin watch python3 $here/machine/watch_gpus.py "$results/watch.csv"
for stage; do
    case $stage in
    until-*) # HH:MM:SS: what runs then is ended, cleanly
        while [ "$(date +%s)" -lt "$until" ] && [[ "$(date +%T)" < "${stage#until-}" ]] && under_way; do sleep 1; done
        [[ "$(date +%T)" < "${stage#until-}" ]] && under_way && break
        for name in all gpu-0 gpu-1; do
            lives $name && kill -TERM -- "-$(cat "$root/$name.pid")"
        done
        ;;
    esac
    watch_to_the_end
    under_way && break
    case $stage in
    until-*) ;;
    singles)
        if [ "$gpus" -gt 1 ]; then
            begin gpu-0 bash $queue 0 "0-$((half - 1))" ${FIRST:-$on_first}
            begin gpu-1 bash $queue 1 "$half-$((cores - 1))" ${SECOND:-$on_second}
        else
            begin gpu-0 bash $queue 0 "0-$((cores - 1))" $on_first $on_second
        fi
        ;;
    *) begin all bash $queue "$(seq -s, 0 $((gpus - 1)))" "0-$((cores - 1))" "$stage" ;;
    esac
done
watch_to_the_end
for name in watch all gpu-0 gpu-1; do
    lives $name && echo "$name is running, $(date +%T)"
done
python3 $here/machine/launch_times.py "$results"
cat "$results"/all.log "$results"/gpu-*.log 2>/dev/null
tail -n 2 "$results/watch.csv" "$results/watch.log"
for log in "$results"/*.job.log; do
    echo "--- $log"
    tail -c 2500 "$log"
done
python3 $here/machine/keep.py keep "$results" "$OUT"
