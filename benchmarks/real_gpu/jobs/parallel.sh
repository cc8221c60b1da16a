# Tensor and data parallelism of two at the night's load, on the same arrivals, and at twice the load.
. benchmarks/real_gpu/machine/study.sh
for rate in 10 20; do
    for kind in tensor data; do
        measure "parallel/$kind-$rate.json" --model "$model" --set load_format=dummy \
            --set api_server_count=1 --set ${kind}_parallel_size=2 --request-rate $rate --window-s 10
    done
done
measure parallel/one-20.json --model "$model" --set load_format=dummy --request-rate 20 --window-s 10
