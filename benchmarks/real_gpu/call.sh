# On the GPU machine: call.sh SECONDS: start night.sh, or watch the one that a call before left
# running, for so long; then keep what there is in $OUT.
here=benchmarks/real_gpu
root=/tmp/tuner-gpu
[ -d $root/src ] || { . $here/set_up.sh && mkdir $root/src && tar -xf .gpu/src.tar -C $root/src; }
mkdir -p $root/results && cp -n .gpu/*.db $root/results/ # what a machine that was lost had done
cd $root/src || exit
. $here/environment.sh
if ! kill -0 "$(cat $root/night.pid 2>/dev/null)" 2>/dev/null; then
    echo "begins at $(date +%T)"
    setsid nohup bash $here/night.sh >>$root/night.log 2>&1 </dev/null &
    echo $! >$root/night.pid
fi
night=$(cat $root/night.pid)
end=$(($(date +%s) + $1))
while [ "$(date +%s)" -lt $end ] && kill -0 "$night" 2>/dev/null; do sleep 1; done
date +%T
tail -c 7000 $root/night.log
cp $root/night.log $root/results/*.db "$OUT/"
