# Every precision with 256 requests in flight.
. benchmarks/real_gpu/machine/study.sh
study busy --no-confirm --space "precision+$root/spaces/dummy.yaml" --allow-output-changes \
    --concurrency 256 --window-s 30 --slo 'p99_tpot_ms<=60' --slo 'p99_ttft_ms<=1000' --trials 4
