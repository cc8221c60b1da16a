#!/usr/bin/env bash
# Fetch vLLM's Rust binary, a load generator to compare with, out of vLLM's wheel (340 MB); it needs
# neither a GPU nor Python.
# stdout: the path of the `vllm-rs` executable. Everything else goes to stderr.
set -euo pipefail

readonly VLLM_VERSION=0.33.0
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly FOLDER="$CACHE/vllm-rs-$VLLM_VERSION"
readonly BINARY="$FOLDER/vllm-rs"

say() { printf 'vllm-rs: %s\n' "$*" >&2; }

fetch() {
    local wheels
    wheels="$(mktemp -d)"
    "${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary :all: \
        --platform manylinux_2_28_x86_64 --python-version 3.12 --dest "$wheels" "vllm==$VLLM_VERSION"
    "${PYTHON:-python3}" - "$wheels" "$FOLDER" <<'PYTHON'
import sys, zipfile
from pathlib import Path

wheel, = Path(sys.argv[1]).glob("*.whl")
(Path(sys.argv[2]) / "unfinished").write_bytes(zipfile.ZipFile(wheel).read("vllm/vllm-rs"))
PYTHON
    rm -rf "$wheels"
    chmod +x "$FOLDER/unfinished"
    mv "$FOLDER/unfinished" "$BINARY"
    "$BINARY" --version
}

mkdir -p "$FOLDER"
exec 9>"$FOLDER.lock" # two at once would spoil each other's
flock 9
if [ ! -e "$BINARY" ]; then
    say "fetching vllm-rs $VLLM_VERSION into $FOLDER (a minute, once)"
    fetch >&2
fi
printf '%s\n' "$BINARY"
