# Three configurations that the night measured under live limits, on three clean launches each.
. benchmarks/real_gpu/machine/study.sh
[ -e "$results/night.done" ] || exit
python3 -m tuner show night --store "$results/night.db" --format json |
    python3 $here/machine/live_trials.py >"$results/clean.txt" || exit
for turn in 1 2 3; do
    while read -r trial settings; do
        measure "clean/$trial-$turn.json" --model "$model" --set load_format=dummy $settings </dev/null
    done <"$results/clean.txt"
done
[ "$(ls "$results"/clean/*.json | wc -l)" = $((3 * $(wc -l <"$results/clean.txt"))) ]
