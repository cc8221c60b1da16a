#!/usr/bin/env bash
# Fetch vLLM's Rust binary, a load generator to compare with, out of vLLM's wheel (340 MB); it needs
# neither a GPU nor Python.
# stdout: the path of the `vllm-rs` executable. Everything else goes to stderr.
set -euo pipefail

readonly NAME=vllm-rs VERSION=0.33.0
. "$(dirname "${BASH_SOURCE[0]}")/tool-environment.sh"

fetch() {
    local wheels
    wheels="$(mktemp -d)"
    mkdir -p "$FOLDER/bin"
    "${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary :all: \
        --platform manylinux_2_28_x86_64 --python-version 3.12 --dest "$wheels" "vllm==$VERSION"
    "${PYTHON:-python3}" - "$wheels" "$FOLDER/bin/$NAME" <<'PYTHON'
import sys, zipfile
from pathlib import Path

wheel, = Path(sys.argv[1]).glob("*.whl")
Path(sys.argv[2]).write_bytes(zipfile.ZipFile(wheel).read("vllm/vllm-rs"))
PYTHON
    rm -rf "$wheels"
    chmod +x "$FOLDER/bin/$NAME"
    "$FOLDER/bin/$NAME" --version
}

set_up fetch
