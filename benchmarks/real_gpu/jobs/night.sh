# The night at 10 requests/s: TRIALS configurations, then the confirmation on traffic that is new.
. benchmarks/real_gpu/machine/study.sh
study night --space "${SPACE:-default+precision}+$root/spaces/dummy.yaml" --allow-output-changes \
    --request-rate 10 --window-s 13 --confirm-window-s 30 --trials "${TRIALS:-16}" \
    --slo 'p99_tpot_ms<=30' --slo 'p99_ttft_ms<=300' || exit
python3 -m tuner resume night --store "$results/night.db" --confirm --yes
