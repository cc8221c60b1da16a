# On the GPU machine: facts, our energy window against Zeus's, and one server measured once.
here=benchmarks/real_gpu
. $here/set_up.sh
. $here/environment.sh
date +%T
python3 $here/nvml_facts.py "$OUT/nvml_facts.json"
date +%T
python3 $here/against_zeus.py "$OUT/against_zeus.json"
date +%T
mkdir -p /tmp/store && cd "$PWD" || exit
timeout "${1:-300}" python3 -m tuner measure --model $here/llama-3.1-8b --workload chat \
    --concurrency 128 --read-only-device --window-s 15 --set max_model_len=8192 \
    --set load_format=dummy --set skip_tokenizer_init=true --format json >"$OUT/measure.json"
echo "exit code $?"
date +%T
head -c 6000 "$OUT/measure.json"
find / -name '*.log' -newer $here/set_up.sh -path '*tuner*' 2>/dev/null | head -5 |
    while read -r log; do tail -c 3000 "$log"; cp "$log" "$OUT/"; done
