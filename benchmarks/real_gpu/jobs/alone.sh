# What the night leaves open, each on a launch of its own: the default again and again (A/A),
# configurations that the night measured under live limits, the default with 256 in flight.
. benchmarks/real_gpu/machine/study.sh
python3 -m tuner show night --store "$results/night.db" --format json |
    python3 $here/machine/live_trials.py >"$results/clean.txt"
for turn in 1 2 3; do
    measure same/$turn-dummy.json --model "$model" --set load_format=dummy
    read -r trial settings <<<"$(sed -n "${turn}p" "$results/clean.txt")"
    [ -z "$trial" ] || measure "clean/$trial-1.json" --model "$model" --set load_format=dummy $settings
done
measure alone/busy.json --model "$model" --set load_format=dummy --concurrency 256 --window-s 40
