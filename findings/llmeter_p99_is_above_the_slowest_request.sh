#!/usr/bin/env bash
# llmeter's p99 of fewer than 99 requests is later than the slowest of them: 19 requests that take 1 s and one
# that takes 6 s have a p99 of 9.95 s. Its percentiles are cut points beyond the sample, as for a whole
# population, drawn through the last two values. A short run fails an SLO that no request has missed, and the
# fewer requests, the more: with 10 it is 10.45 s. From 99 requests on p99 is at most the slowest.
# Seen with llmeter 0.2.0.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>/dev/null; }
pip fsspec==2026.9.0 pathlib_abc==0.5.2
pip --no-deps universal_pathlib==0.3.10 llmeter==0.2.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

from llmeter.utils import summary_stats_from_list

print("llmeter", version("llmeter"))
seen = {}
for count in (10, 20, 99, 200):
    seconds = [1.0] * (count - 1) + [6.0]
    seen[count] = round(summary_stats_from_list(seconds)["p99"], 2)
    print(f"{count} requests, the slowest {max(seconds)} s: p99 {seen[count]} s")
assert seen == {10: 10.45, 20: 9.95, 99: 6.0, 200: 1.0}, seen
PY
