"""Client bottleneck: whether the client made a load look slow, with a warning or no window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.load.client.client_watch import MAX_LAG_P99_MS, MAX_LATE_P99_MS, DriveReport
from tuner.measurement.requests.latencies import e2el_ms, ttft_ms
from tuner.measurement.steady_window import WindowPlan
from tuner.records import RequestRecord, RequestState

# Of the shortest time that is taken of a request: so much of it may be the client's.
_MOST_SHARE = 0.05
# A thread that computes for so much of the time has no more to give.
_BUSY_SHARE = 0.8
# Of a request's whole life: a client later than this sets the pace, whosever fault it is.
_PACE_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class ClientVerdict:
    """`invalid` says why a window is to be thrown away, `warning` that its latencies are high."""

    invalid: str | None
    warning: str | None


def judge_client(
    report: DriveReport, busy_share: float | None, window_s: float | None
) -> ClientVerdict:
    """Judge whether the client distorted the window, and whether the client itself was the cause.

    A lag of the event loop delays first and last tokens: TTFT, and the time from first token to
    last, are wrong by as much. This matters once the lag is more than 5 ms and 5 % of the median of
    the shorter. If the client computed for 80 % of the window (`busy_share`, None if unknown), or
    was late by a quarter of a request's life, it set the pace: the server got another load than
    planned, and the window is invalid. Otherwise other processes held its core for moments, which
    gives a warning: TTFT and E2EL seem longer than they are, and TPOT may seem shorter, because the
    kernel gives chunks that wait together the time of the newest.

    Where no request was answered, a client that was late by a quarter of the window (`window_s`,
    None if there was none) may just not have been there to see it.
    """
    done = [r for r in report.records if r.state is RequestState.DONE]
    shortest_ms, life_ms = _shortest_ms(done), _median([e2el_ms(r) for r in done])
    if shortest_ms is None or life_ms is None:
        return ClientVerdict(_away(report, window_s), None)
    limits = [
        (report.lag_p99_ms, MAX_LAG_P99_MS, "its event loop was late by {:.1f} ms at p99"),
        (report.late_p99_ms, MAX_LATE_P99_MS, "it sent requests {:.1f} ms late at p99"),
    ]
    late = [
        (ms, text.format(ms))
        for ms, least_ms, text in limits
        if ms is not None and ms > max(least_ms, _MOST_SHARE * shortest_ms)
    ]
    if not late:
        return ClientVerdict(None, None)
    what = " and ".join(text for _, text in late)
    is_busy = busy_share is not None and busy_share >= _BUSY_SHARE
    if is_busy or max(ms for ms, _ in late) > _PACE_SHARE * life_ms:
        used = (
            ""
            if busy_share is None
            else f", and it computed for {100 * busy_share:.0f} % of the time"
        )
        return ClientVerdict(
            f"the client, not the server, was the bottleneck: {what} (a request takes "
            f"{life_ms:.0f} ms){used}; lower the load, or give the tuner a core of its own "
            "(`taskset -c 0 tuner ...`; for root --client-priority does it)",
            None,
        )
    return ClientVerdict(
        None,
        f"other processes kept the client from running: {what}; TTFT and E2EL are at most so much "
        "shorter than shown, and a request's time from first to last token so much longer",
    )


def _away(report: DriveReport, window_s: float | None) -> str | None:
    late_ms = max(report.lag_p99_ms or 0.0, report.late_p99_ms or 0.0)
    if not report.records or window_s is None or late_ms <= _PACE_SHARE * 1e3 * window_s:
        return None
    return (
        f"no request was answered in the window of {window_s:.1f} s, but other processes kept the "
        f"client from running for {late_ms:.0f} ms at p99; lengthen it with --window-s, or give "
        "the tuner a core of its own"
    )


def too_few_requests(records: Sequence[RequestRecord], plan: WindowPlan) -> str:
    """Say how many requests a load needs that ran out of them before its window began."""
    span_s = max(r.ended_s for r in records) - min(r.sent_s for r in records) if records else 0.0
    start = f"the requests ran out after {len(records)}, before the load had settled"
    if span_s <= 0.0:
        return f"{start}; give a longer list"
    rate = len(records) / span_s
    needed = math.ceil(rate * (plan.latest_start_s + plan.least_window_s))
    return (
        f"{start}: at {rate:.3g} requests/s, a warm-up of up to {plan.latest_start_s:.0f} s and a "
        f"window of {plan.least_window_s:.0f} s need {needed}; give a longer list, or a shorter "
        "--window-s or --max-window-s"
    )


def _shortest_ms(done: Sequence[RequestRecord]) -> float | None:
    spans = [
        1e3 * float(r.token_times_s[-1] - r.token_times_s[0])
        for r in done
        if r.token_times_s.size > 1
    ]
    medians = [_median([ttft_ms(r) for r in done]), _median(spans)]
    present = [m for m in medians if m is not None]
    return min(present) if present else None


def _median(values: Sequence[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return float(np.median(present)) if present else None
