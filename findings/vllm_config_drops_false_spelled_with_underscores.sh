#!/usr/bin/env bash
# `vllm serve --config FILE` takes a flag's name with dashes or with underscores. With underscores,
# a `false` is dropped without a word: `enable_prefix_caching: false` leaves prefix caching on, where
# `enable-prefix-caching: false` turns it off, and `max_num_seqs: 8` beside it is obeyed. And
# `--config=FILE`, with an equals sign, never opens the file: a file that is not there passes.
# Seen with vllm 0.33.0. Its argument parser is read alone: the package's `__init__` imports torch.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>/dev/null; }
pip regex==2026.11.19 pyyaml==6.0.4
pip --no-deps vllm==0.33.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import argparse
import importlib.util
import sys
import types
from importlib.metadata import version
from pathlib import Path

print("vllm", version("vllm"))
found = importlib.util.find_spec("vllm")
for name, path in [("vllm", ""), ("vllm.utils", "/utils")]:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [f"{found.submodule_search_locations[0]}{path}"]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402

parser = FlexibleArgumentParser()  # these three as `vllm serve` declares them
parser.add_argument("model", nargs="?")
parser.add_argument("--config")
parser.add_argument("--max-num-seqs", type=int)
parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=None)


def parsed(text: str) -> tuple[bool | None, int | None]:
    Path("flags.yaml").write_text(text)
    flags = parser.parse_args(["m", "--config", "flags.yaml"])
    return flags.enable_prefix_caching, flags.max_num_seqs


dashes = parsed("enable-prefix-caching: false\nmax-num-seqs: 8\n")
underscores = parsed("enable_prefix_caching: false\nmax_num_seqs: 8\n")
true = parsed("enable_prefix_caching: true\nmax_num_seqs: 8\n")
equals = parser.parse_args(["m", "--config=not-there.yaml"])
print("(prefix caching, sequences): dashes", dashes, "underscores", underscores, "true", true)
print("--config=not-there.yaml:", vars(equals))
assert dashes == (False, 8)
assert underscores == (None, 8)
assert true == (True, 8)
assert equals.max_num_seqs is None and equals.config == "not-there.yaml"
PY
