"""Latencies of requests: one request's, and those that count in a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np

from tuner.metrics import OUTPUT_KINDS, WHOLE_ANSWER, Output
from tuner.records import FloatArray, InFlight, RequestRecord, RequestState


def ttft_ms(record: RequestRecord) -> float | None:
    """First token - scheduled time; None before the first token."""
    if record.token_times_s.size == 0:
        return None
    return float(record.token_times_s[0] - record.scheduled_s) * 1e3


def tpot_ms(record: RequestRecord) -> float | None:
    """(Last token - first token) / (output tokens - 1); None for fewer than two tokens."""
    n = record.token_times_s.size
    if n < 2:
        return None
    return float(record.token_times_s[-1] - record.token_times_s[0]) / (n - 1) * 1e3


def e2el_ms(record: RequestRecord) -> float | None:
    """Last token, or the image or video - scheduled time; None before the first token."""
    if record.token_times_s.size == 0:
        return None
    return float(record.token_times_s[-1] - record.scheduled_s) * 1e3


def at_least_ms(latency: str, under_way: InFlight, now_s: float) -> FloatArray:
    """Return what a latency of each request under way will be at least, ms; NaN where unknown."""
    firsts_s = under_way.first_token_s
    if latency == "ttft_ms":
        return 1e3 * (np.where(np.isnan(firsts_s), now_s, firsts_s) - under_way.scheduled_s)
    if latency in WHOLE_ANSWER:
        return 1e3 * (now_s - under_way.scheduled_s)
    gaps = np.where(under_way.output_tokens > 1, under_way.output_tokens - 1, np.nan)
    return 1e3 * (now_s - firsts_s) / gaps


def finished_within(
    requests: Iterable[RequestRecord], start_s: float, end_s: float
) -> list[RequestRecord]:
    """Return the whole answers whose last token, or image or video, came in (start, end]."""
    return [
        r
        for r in requests
        if r.state is RequestState.DONE and start_s < r.token_times_s[-1] <= end_s
    ]


def started_within(
    requests: Iterable[RequestRecord], start_s: float, end_s: float
) -> list[RequestRecord]:
    """Return the requests whose first token came in (start, end]."""
    return [r for r in requests if r.token_times_s.size and start_s < r.token_times_s[0] <= end_s]


def samples_ms(
    requests: Iterable[RequestRecord],
    finished: list[RequestRecord],
    start_s: float,
    end_s: float,
    output: Output = Output.TEXT,
) -> dict[str, FloatArray]:
    """TTFT by first token in the window, TPOT and E2EL by last, ITL by the gap's end."""
    whole = present(e2el_ms(r) for r in finished)
    if not output.is_text:
        return dict.fromkeys(OUTPUT_KINDS[output].latencies, whole)
    first_in_window = started_within(requests, start_s, end_s)
    return {
        "ttft_ms": present(ttft_ms(r) for r in first_in_window),
        "tpot_ms": present(tpot_ms(r) for r in finished),
        "itl_ms": token_gaps_ms(requests, start_s, end_s)[1],
        "e2el_ms": whole,
    }


def present(values: Iterable[float | None]) -> FloatArray:
    """Return the values that are known, in their order."""
    return np.array([v for v in values if v is not None], dtype=np.float64)


def token_gaps_ms(
    requests: Iterable[RequestRecord], start_s: float, end_s: float
) -> tuple[FloatArray, FloatArray]:
    """Return when each gap between two tokens of a request ended, s, and how long it was.

    Tokens that arrive together, as those of an accepted draft, share the gap before them evenly;
    those that come with the first token have none. Of the gaps that ended in (start, end], request
    by request; both of shape (gaps,).
    """
    parts = [r.token_times_s for r in requests if r.token_times_s.size]
    times_s = np.concatenate([np.empty(0), *parts])
    inside = (times_s > start_s) & (times_s <= end_s)
    if not times_s.size:
        return times_s, times_s
    firsts = np.cumsum([0, *[part.size for part in parts]])[:-1]
    begins = np.diff(times_s, prepend=-np.inf) != 0.0  # a chunk of tokens
    begins[firsts] = True
    starts = np.flatnonzero(begins)
    sizes = np.diff(starts, append=times_s.size)
    gaps_s = np.diff(times_s[starts], prepend=0.0) / sizes
    is_first = np.zeros(times_s.size, dtype=np.bool_)
    is_first[firsts] = True
    inside &= ~np.repeat(is_first[starts], sizes)  # nothing of the request came before
    return times_s[inside], np.repeat(gaps_s, sizes)[inside] * 1e3


def is_good(record: RequestRecord, limits_ms: Mapping[str, float]) -> bool:
    """Say whether a request met the limit of every latency that has one."""
    # a one-token answer has no TPOT and no gap to be late with
    return all(
        (value := latency_ms(record)) is None or value <= limits_ms[name]
        for name, latency_ms in LATENCY_MS.items()
        if name in limits_ms
    )


def waits_at(record: RequestRecord, now_s: float) -> bool:
    """Say whether a request had no token yet."""
    return record.token_times_s.size == 0 or bool(record.token_times_s[0] > now_s)


def hopeless_after_ms(limits_ms: Mapping[str, float]) -> float | None:
    """Return the age from which a request without a token is late in any case; None without one."""
    waiting = [limits_ms[k] for k in ("ttft_ms", *(WHOLE_ANSWER - {"e2el_ms"})) if k in limits_ms]
    return min(waiting, default=None)


def _longest_gap_ms(record: RequestRecord) -> float | None:
    gaps_ms = token_gaps_ms([record], -math.inf, math.inf)[1]
    return float(gaps_ms.max()) if gaps_ms.size else None


LATENCY_MS: Mapping[str, Callable[[RequestRecord], float | None]] = MappingProxyType(
    {
        **dict.fromkeys(WHOLE_ANSWER, e2el_ms),
        "ttft_ms": ttft_ms,
        "tpot_ms": tpot_ms,
        "itl_ms": _longest_gap_ms,
    }
)
