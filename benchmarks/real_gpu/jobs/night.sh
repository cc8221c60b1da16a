# The night at 10 requests/s on every card: TRIALS configurations, then PAIRS of the best and the
# default on traffic that is new, and more of them until NIGHT_S. It ends after LATEST_S in any case.
. benchmarks/real_gpu/machine/study.sh
python3 $here/machine/stop_after_pairs.py "$results/night.db" "${PAIRS:-4}" "${NIGHT_S:-900}" \
    "${LATEST_S:-1250}" &
watcher=$!
forks=()
[ -e "$root/forks.ok" ] && forks=(--fork-servers)
study night "${forks[@]}" --cards all --space "${SPACE:-default+precision}+$root/spaces/dummy.yaml" \
    --allow-output-changes --request-rate 10 --window-s 10 --confirm-window-s "${CONFIRM_S:-40}" \
    --trials "${TRIALS:-16}" --slo 'p99_tpot_ms<=30' --slo 'p99_ttft_ms<=300'
code=$?
# if the watcher has ended, it interrupted the tuner, as it was meant to
if kill $watcher 2>/dev/null; then exit $code; fi
