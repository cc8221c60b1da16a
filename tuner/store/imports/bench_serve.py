"""Importer of result files of `vllm bench serve --save-result`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuner.errors import UsageError
from tuner.store import ComparisonPoint

TOOL = "vllm bench serve"
_WRITE_ONE = "write one with `vllm bench serve ... --save-result`"
_STATISTICS = {"mean": "mean", "p50": "median", "p90": "p90", "p95": "p95", "p99": "p99"}
_THROUGHPUTS = {
    "output_throughput_tok_s": "output_throughput",
    "request_throughput_req_s": "request_throughput",
}


def read_results(path: Path) -> list[ComparisonPoint]:
    """Return the results in a file: one, or one per line as `--append-result` writes them.

    Latencies are in ms and throughputs per second, as in the file. Raises `UsageError` for any
    other file, and for a run in which no request succeeded.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"'{path}' is not text; {_WRITE_ONE}") from None
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror}") from None
    texts = _results_in(path, content)
    return [_point(f"'{path}'", path.name, text) for text in texts]


def _results_in(path: Path, content: str) -> list[str]:
    """Return the JSON texts in a file: the whole, or its lines."""
    whole = content.strip()
    lines = [line for line in whole.split("\n") if line.strip()]
    for texts in ([whole], lines):
        if texts and all(_parsed(text) is not None for text in texts):
            return texts
    raise UsageError(f"'{path}' holds no JSON object; {_WRITE_ONE}")


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _point(where: str, file_name: str, text: str) -> ComparisonPoint:
    data = _parsed(text) or {}
    completed, duration_s = _count(data.get("completed")), _positive(data.get("duration"))
    if completed is None or duration_s is None or "request_throughput" not in data:
        raise UsageError(
            f"{where} is no result of vLLM's benchmark: it lacks completed, duration or "
            f"request_throughput; {_WRITE_ONE}"
        )
    if completed == 0:
        raise UsageError(
            f"{where}: no request of that run succeeded, so its zeros are no latencies; look at "
            "the server's log and run it again"
        )
    metrics = _metrics(data)
    if not metrics:
        raise UsageError(f"{where} holds no throughput and no latency; {_WRITE_ONE}")
    return ComparisonPoint(
        tool=TOOL,
        file_name=file_name,
        sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        model=str(data.get("model_id") or "unknown"),
        imported_at=datetime.now(UTC),
        request_rate=_positive(data.get("request_rate")),
        concurrency=_count(data.get("max_concurrency")),
        completed=completed,
        failed=_count(data.get("failed")),
        duration_s=duration_s,
        metrics=metrics,
    )


def _metrics(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that vLLM defines by the same formula.

    vLLM's gaps are between chunks, not tokens, so there is no ITL. Its clock starts when a request
    is sent. If a maximum concurrency delays requests, that hides the wait, so TTFT is left out.
    """
    names = dict(_THROUGHPUTS)
    is_held_back = (
        _positive(data.get("request_rate")) is not None
        and _count(data.get("max_concurrency")) is not None
    )
    latencies = {"tpot_ms": "tpot_ms"}
    if is_held_back:
        latencies["e2el_ms"] = "e2el_including_client_queue_ms"
    else:
        latencies |= {"ttft_ms": "ttft_ms", "e2el_ms": "e2el_ms"}
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
