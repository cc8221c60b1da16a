"""Importer of results of load tests: vLLM's, and SGLang's and TensorRT-LLM's of the same descent.

All three descend from one script and share its fields, so that a file has to tell whose it is:
SGLang's has `mean_e2e_latency_ms`, TensorRT-LLM's `user_throughput`. Each of these tools can
measure other servers too; `backend` names them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuner.errors import UsageError
from tuner.store import UNKNOWN_MODEL, ComparisonPoint
from tuner.store.imports.result_files import WRITE_ONE, StoredResult, stored_results

TOOL = "vllm bench serve"
SGLANG_TOOL = "SGLang bench_serving"
TENSORRT_TOOL = "TensorRT-LLM benchmark_serving"
_OF_SGLANG = ("mean_e2e_latency_ms", "total_output_tokens_retokenized", "accept_length")
_OF_TENSORRT = (
    "user_throughput",
    "avg_decoded_tokens_per_iter",
)
_VLLM = ("openai", "vllm")  # how these backends begin; the first may be any server's
_SERVERS = {
    "sglang": "SGLang",
    "tensorrt": "TensorRT-LLM",
    "trt": "TensorRT-LLM",
    "llama": "llama.cpp",
    "ollama": "Ollama",
    "tgi": "TGI",
    "lmdeploy": "LMDeploy",
    "deepspeed": "DeepSpeed-MII",
    "scalellm": "ScaleLLM",
}
_NAME_CHARS = 40
_STATISTICS = {"mean": "mean", "p50": "median", "p90": "p90", "p95": "p95", "p99": "p99"}
_THROUGHPUTS = {
    "output_throughput_tok_s": "output_throughput",
    "request_throughput_req_s": "request_throughput",
}


def read_results(path: Path) -> list[ComparisonPoint]:
    """Return the results in a file or in the folder of a sweep.

    Latencies are in ms and throughputs per second, as in the file. Raises `UsageError` for any
    other file, and for a run in which no request succeeded.
    """
    return [_point(result) for result in stored_results(path)]


def _point(result: StoredResult) -> ComparisonPoint:
    data, where = result.fields, result.where
    if "engine" in data and ("performance" in data or "request_info" in data):
        raise UsageError(
            f"{where} is a report of trtllm-bench, which measures TensorRT-LLM without a server; "
            f"measure it served, with TensorRT-LLM's benchmark_serving, or {WRITE_ONE}"
        )
    completed, duration_s = _count(data.get("completed")), _positive(data.get("duration"))
    if completed is None or duration_s is None or "request_throughput" not in data:
        raise UsageError(
            f"{where} is no result of vLLM's benchmark: it lacks completed, duration or "
            f"request_throughput; {WRITE_ONE}"
        )
    if completed == 0:
        raise UsageError(
            f"{where}: no request of that run succeeded, so its zeros are no latencies; look at "
            "the server's log and run it again"
        )
    metrics = _metrics(data)
    if not metrics:
        raise UsageError(f"{where} holds no throughput and no latency; {WRITE_ONE}")
    tool = _tool(data)
    return ComparisonPoint(
        tool=tool,
        file_name=result.name,
        sha256=result.sha256,
        model=str(data.get("model_id") or data.get("model") or UNKNOWN_MODEL),
        imported_at=datetime.now(UTC),
        request_rate=None if _is_ramped(data) else _positive(data.get("request_rate")),
        concurrency=_count(data.get("max_concurrency")),
        completed=completed,
        failed=_count(data.get("failed")),
        duration_s=duration_s,
        metrics=metrics,
        server=_server(tool, data.get("backend") or data.get("endpoint_type")),
        arrivals=_arrivals(data),
    )


def _tool(data: Mapping[str, Any]) -> str:
    if any(name in data for name in _OF_SGLANG):
        return SGLANG_TOOL
    return TENSORRT_TOOL if any(name in data for name in _OF_TENSORRT) else TOOL


def _server(tool: str, backend: object) -> str | None:
    """Return what was measured; None for vLLM, and for OpenAI's API without a name."""
    name = backend.lower() if isinstance(backend, str) else ""
    known = next((server for start, server in _SERVERS.items() if name.startswith(start)), None)
    if known is not None:
        return known
    if tool == TENSORRT_TOOL:
        return "TensorRT-LLM"
    return None if not name or name.startswith(_VLLM) else name[:_NAME_CHARS]


def _is_ramped(data: Mapping[str, Any]) -> bool:
    return data.get("ramp_up_strategy") not in (None, "")


def _arrivals(data: Mapping[str, Any]) -> str | None:
    """Return how requests came where it was not at a constant rate with Poisson's gaps."""
    if _is_ramped(data):
        start, end = data.get("ramp_up_start_rps"), data.get("ramp_up_end_rps")
        return f"ramped ({data['ramp_up_strategy']}) from {start} to {end} requests/s"
    if data.get("request_rate") == "trace":
        return "at the times of a trace"
    burstiness = _positive(data.get("burstiness"))
    if burstiness is None or burstiness == 1 or _positive(data.get("request_rate")) is None:
        return None
    kind = "bursty" if burstiness < 1 else "even"
    return f"{kind} arrivals (gamma, burstiness {burstiness:g})"


def _metrics(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that vLLM defines by the same formula.

    vLLM's gaps are between chunks, not tokens, so there is no ITL. Its clock starts when a request
    is sent. If a maximum concurrency delays requests, that hides the wait, so TTFT is left out.
    """
    names = dict(_THROUGHPUTS)
    is_open = _positive(data.get("request_rate")) is not None or _arrivals(data) is not None
    is_held_back = is_open and _count(data.get("max_concurrency")) is not None
    latencies = {"tpot_ms": "tpot_ms"}
    if is_held_back:
        latencies["e2el_ms"] = "e2el_including_client_queue_ms"
    else:
        e2el = "e2e_latency_ms" if _tool(data) == SGLANG_TOOL else "e2el_ms"
        latencies |= {"ttft_ms": "ttft_ms", "e2el_ms": e2el}
    for ours, theirs in latencies.items():
        names |= {f"{s}_{ours}": f"{word}_{theirs}" for s, word in _STATISTICS.items()}
    found = {ours: _positive(data.get(theirs)) for ours, theirs in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def _positive(value: object) -> float | None:
    """Return a number greater than 0; None for "inf" and for 0, which vLLM writes if unknown."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if is_count and isinstance(value, int) else None
