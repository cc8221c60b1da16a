# Every precision at 2 requests/s.
. benchmarks/real_gpu/machine/study.sh
study slow --no-confirm --space "precision+$root/spaces/dummy.yaml" --allow-output-changes \
    --request-rate 2 --window-s 20 --slo 'p99_tpot_ms<=15' --slo 'p99_ttft_ms<=300' --trials 4
