#!/usr/bin/env bash
# Set up GuideLLM, a load generator to compare with, in a cached virtual environment.
# stdout: the path of the `guidellm` executable. Everything else goes to stderr.
set -euo pipefail

readonly GUIDELLM_VERSION=0.8.1
readonly TORCH_VERSION=2.13.0
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly VENV="$CACHE/guidellm-$GUIDELLM_VERSION"
readonly COMPLETE="$VENV/.complete"

say() { printf 'guidellm: %s\n' "$*" >&2; }

install() {
    rm -rf "$VENV"
    "${PYTHON:-python3}" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet "torch==$TORCH_VERSION"
    "$VENV/bin/python" -m pip install --quiet "guidellm==$GUIDELLM_VERSION"
    "$VENV/bin/guidellm" --version
    touch "$COMPLETE"
}

mkdir -p "$CACHE"
exec 9>"$VENV.lock" # two set-ups at once would spoil each other's
flock 9
if [ ! -e "$COMPLETE" ]; then
    say "installing GuideLLM $GUIDELLM_VERSION into $VENV (some minutes, once)"
    install >&2
fi
printf '%s\n' "$VENV/bin/guidellm"
