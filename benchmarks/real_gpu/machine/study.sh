# Source this in a job: how a study and a single measurement are made, or gone on with.
. benchmarks/real_gpu/machine/environment.sh
model=$root/llama-3.1-8b

study() { # NAME OPTION...
    local name=$1 store=$results/$1.db code
    shift
    if python3 -m tuner show "$name" --store "$store" >/dev/null 2>&1; then
        python3 -m tuner resume "$name" --store "$store" --yes
    else
        python3 -m tuner run --study "$name" --store "$store" --model "$model" --workload chat \
            --read-only-device --yes --startup-deadline-s 240 "$@"
    fi
    code=$?
    echo "$name: exit code $code, $(date +%T)"
    [ $code = 0 ] || [ $code = 4 ] # 4: nothing met the SLO, which is a result
}

measure() { # FILE OPTION...: one configuration on a launch of its own, at 10 requests/s
    local file=$results/$1
    shift
    [ -e "$file" ] && return
    mkdir -p "$(dirname "$file")"
    local load=(--request-rate 10 --window-s 10)
    [[ "$*" == *--concurrency* || "$*" == *--request-rate* ]] && load=()
    python3 -m tuner measure --workload chat "${load[@]}" --read-only-device \
        --slo 'p99_tpot_ms<=30' --slo 'p99_ttft_ms<=300' --format json \
        --set max_model_len=8192 --set skip_tokenizer_init=true "$@" >"$file.new" &&
        mv "$file.new" "$file"
}
