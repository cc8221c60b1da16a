# On the GPU machine, in the repository's root: a short night that goes on where a call was cut.
# A study at 10 requests/s, clean launches of its front and of the default, and a study of a closed
# loop of 256.
here=benchmarks/real_gpu
folder=/tmp/tuner-gpu/results
mkdir -p $folder

study() { # NAME OPTION...: run it, or go on with it
    name=$1 store=$folder/$1.db
    shift
    if python3 -m tuner show "$name" --store "$store" >/dev/null 2>&1; then
        python3 -m tuner resume "$name" --store "$store"
    else
        python3 -m tuner run --study "$name" --model $here/llama-3.1-8b --workload chat \
            --slo 'p99_ttft_ms<=1000' --read-only-device --no-confirm \
            --store "$store" "$@"
    fi
    echo "$name: exit code $?, $(date +%T)"
}

study rate --space $here/space.yaml --request-rate 10 --window-s 14 --trials 13 \
    --slo 'p99_tpot_ms<=25'
python3 -m tuner resume rate --store $folder/rate.db --confirm
echo "confirmed: exit code $?, $(date +%T)"
study saturation --space $here/memory.yaml --concurrency 256 --window-s 12 --trials 12 \
    --slo 'p99_tpot_ms<=50'
