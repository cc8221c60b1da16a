#!/usr/bin/env bash
# Set up AIPerf, a load generator to compare with, in a cached virtual environment.
# stdout: the path of the `aiperf` executable. Everything else goes to stderr.
set -euo pipefail

readonly AIPERF_VERSION=0.13.0
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly VENV="$CACHE/aiperf-$AIPERF_VERSION"
readonly COMPLETE="$VENV/.complete"

say() { printf 'aiperf: %s\n' "$*" >&2; }

install() {
    rm -rf "$VENV"
    "${PYTHON:-python3}" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet "aiperf==$AIPERF_VERSION"
    "$VENV/bin/aiperf" --version
    touch "$COMPLETE"
}

mkdir -p "$CACHE"
exec 9>"$VENV.lock" # two set-ups at once would spoil each other's
flock 9
if [ ! -e "$COMPLETE" ]; then
    say "installing AIPerf $AIPERF_VERSION into $VENV (some minutes, once)"
    install >&2
fi
printf '%s\n' "$VENV/bin/aiperf"
