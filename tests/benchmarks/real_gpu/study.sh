# On the GPU machine: study.sh NAME SECONDS OPTION...: a study of SECONDS at most, kept in $OUT.
here=tests/benchmarks/real_gpu
name=$1 seconds=$2
shift 2
. $here/set_up.sh
date +%T
timeout --signal=INT --kill-after=30 "$seconds" python3 -m tuner run --study "$name" \
    --model $here/llama-3.1-8b --workload chat --space $here/space.yaml \
    --slo 'p99_tpot_ms<=50' --slo 'p99_ttft_ms<=1000' --read-only-device \
    --store "/tmp/tuner-gpu/$name.db" "$@"
echo "exit code $?"
date +%T
cp "/tmp/tuner-gpu/$name.db" "$OUT/"
python3 -m tuner show "$name" --store "/tmp/tuner-gpu/$name.db" --format json >"$OUT/$name.json"
tar -cJf "$OUT/logs.tar.xz" -C /tmp/tuner-gpu --exclude=site --exclude=cache .
