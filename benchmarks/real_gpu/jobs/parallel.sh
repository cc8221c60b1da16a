# One GPU, tensor parallelism of two and data parallelism of two, at the same two loads.
. benchmarks/real_gpu/machine/study.sh
study parallel --space "$root/spaces/parallel.yaml" --window-s 20 --slo 'p99_tpot_ms<=30' \
    --slo 'p99_ttft_ms<=300' --request-rate 10 --trials 6
