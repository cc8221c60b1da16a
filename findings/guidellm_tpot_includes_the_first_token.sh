#!/usr/bin/env bash
# One streamed request: first token after 1 s, then 99 tokens, one every 10 ms. vLLM's TPOT
# (`vllm bench serve`, and the server's histogram) leaves the first token out: 10 ms. GuideLLM's
# `time_per_output_token_ms` is latency / tokens: 19.9 ms, time to first token and queue included.
# What others call TPOT is its `inter_token_latency_ms`. An SLO or a chart that takes the field by
# its name compares two different things.
# Seen with guidellm 0.8.1 (its schemas need none of its model libraries, so those are left out).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>/dev/null; }
pip pydantic==2.14.4 pydantic-settings==2.15.0 loguru==0.7.3 pyyaml==6.0.3 numpy==2.4.6
pip --no-deps guidellm==0.8.1
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

from guidellm.schemas import GenerativeRequestStats, RequestInfo, RequestTimings, UsageMetrics

print("guidellm", version("guidellm"))
timings = RequestTimings(
    request_start=100.0,
    first_request_iteration=101.0,
    first_token_iteration=101.0,
    last_token_iteration=101.99,
    last_request_iteration=101.99,
    token_iterations=100,
    request_end=101.99,
    resolve_end=101.99,
)
request = GenerativeRequestStats(
    request_id="r",
    info=RequestInfo(request_id="r", status="completed", timings=timings),
    input_metrics=UsageMetrics(text_tokens=10),
    output_metrics=UsageMetrics(text_tokens=100),
)
shown = {
    name: round(getattr(request, name), 3)
    for name in ("time_to_first_token_ms", "time_per_output_token_ms", "inter_token_latency_ms")
}
print(shown)
assert shown == {
    "time_to_first_token_ms": 1000.0,
    "time_per_output_token_ms": 19.9,
    "inter_token_latency_ms": 10.0,
}
PY
