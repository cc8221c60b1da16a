"""Early stopping: a load ends before its window does if it misses an SLO or outgrew the server.

Both are asked again and again while a load runs, so both ask for far more than 95 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.load.overload import overload_sentence
from tuner.measurement.intervals import SHARES, batch_of, independent_requests
from tuner.measurement.requests.latencies import at_least_ms
from tuner.measurement.window_statistics import WindowStatistics, as_column
from tuner.metrics import WHOLE_ANSWER
from tuner.records import EarlyEnd, FloatArray, InFlight
from tuner.slo import Slo

# No window with a reported energy is shorter; a shorter excess may be a single burst.
LEAST_WINDOW_S = 5.0
_LEAST_REQUESTS = 20
_FALSE_ALARM = 1e-3  # of one look at independent requests
_BATCHES = 8
_QUARTERS = 4

_LEAST_LOAD_S = 10.0
_LEAST_ARRIVALS = 50
_GROWTH_SHARE = 0.05  # of the arrivals; less may be kept up with, as far as one can tell
_GROWTH_SIGMAS = 4.0
_GROWTH_SIGMAS_ALONE = 8.0  # where no SLO says that those who wait have waited too long
_COUNT_BINS = 20


@dataclass(frozen=True, slots=True, eq=False)
class _Verdicts:
    """For each request whether it is past a bound, and when that was known.

    `open` counts the requests under way of which nothing can be said yet.
    """

    times_s: FloatArray
    late: NDArray[np.bool_]
    open: int


def first_missed(
    slos: tuple[Slo, ...],
    statistics: WindowStatistics,
    under_way: InFlight,
    start_s: float,
    now_s: float,
) -> EarlyEnd | None:
    """Return the first SLO on a percentile that is clearly missed since `start_s`, if any."""
    if now_s - start_s < LEAST_WINDOW_S:
        return None
    for slo in slos:
        statistic, _, latency = slo.metric.partition("_")
        share = SHARES.get(statistic)
        if share is None or latency not in statistics.latencies_ms:
            continue
        verdicts = _verdicts(latency, slo.bound, statistics, under_way, start_s, now_s)
        if _clearly_more(verdicts, 1.0 - share, start_s, now_s):
            late = f"{int(verdicts.late.sum())} of {verdicts.late.size} requests"
            reason = f"ended early: {late} were past {slo} in the first {now_s - start_s:.0f} s"
            return EarlyEnd(reason, str(slo))
    return None


def _verdicts(
    latency: str,
    bound_ms: float,
    statistics: WindowStatistics,
    under_way: InFlight,
    start_s: float,
    now_s: float,
) -> _Verdicts:
    """Judge the requests that count since `start_s`: for TTFT by first token, else by last."""
    values = as_column(statistics.latencies_ms[latency])
    times_s = as_column(statistics.answered_s)
    if latency == "ttft_ms":
        times_s = times_s - (as_column(statistics.latencies_ms["e2el_ms"]) - values) / 1e3
    keep = (times_s > start_s) & ~np.isnan(values)
    least_ms = at_least_ms(latency, under_way, now_s)
    late = least_ms > bound_ms
    # it was known to be late when it passed the bound
    when_s = now_s - (least_ms - bound_ms) / 1e3
    if latency == "tpot_ms":
        when_s = now_s - (least_ms - bound_ms) * (under_way.output_tokens - 1) / 1e3
    judged = late
    if latency == "ttft_ms":
        started = ~np.isnan(under_way.first_token_s)
        judged = np.where(started, under_way.first_token_s > start_s, late)
        when_s = np.where(started, under_way.first_token_s, when_s)
    return _Verdicts(
        np.concatenate([times_s[keep], np.maximum(when_s[judged], start_s)]),
        np.concatenate([values[keep] > bound_ms, late[judged]]),
        int(late.size - judged.sum()),
    )


def _clearly_more(verdicts: _Verdicts, allowed: float, start_s: float, now_s: float) -> bool:
    """Say whether more than a share `allowed` is late, however those under way end.

    And not in one burst: in each quarter of the time.
    """
    late = verdicts.late.astype(np.float64)
    total = late.size
    if total < _LEAST_REQUESTS or late.sum() <= allowed * (total + verdicts.open):
        return False
    counted, missed = _per_batch(verdicts.times_s, late, start_s, now_s, _QUARTERS)
    if np.any(missed <= allowed * counted):
        return False
    counted, missed = _per_batch(verdicts.times_s, late, start_s, now_s, _BATCHES)
    share = float(late.mean())
    independent = independent_requests(missed, counted, share)
    from scipy.special import betainc

    hits = share * independent
    misses = (1.0 - share + verdicts.open / total) * independent
    return bool(betainc(hits, misses + 1.0, allowed) < _FALSE_ALARM)


def _per_batch(
    times_s: FloatArray, late: FloatArray, start_s: float, now_s: float, batches: int
) -> tuple[FloatArray, FloatArray]:
    batch = batch_of(times_s, start_s, now_s, batches)
    counted = np.bincount(batch, minlength=batches).astype(np.float64)
    missed: FloatArray = np.bincount(batch, weights=late, minlength=batches).astype(np.float64)
    return counted, missed


class Backlog:
    """Detects overload: the queue of requests without a first token only grows.

    While a load fills a server, the number under way grows too, but no request waits for long. A
    stable queue also wanders by chance, as far as bursty arrivals do. So the queue must grow in
    both halves of the latter half of the load, by more than 4 standard deviations of such a random
    walk, and most waiting requests must have missed the SLO already.
    """

    def __init__(self, load_start_s: float) -> None:
        self._load_start_s = load_start_s
        self._times_s = [load_start_s]
        self._waiting = [0.0]

    def outgrown(
        self, slos: tuple[Slo, ...], sent_s: FloatArray, under_way: InFlight, now_s: float
    ) -> EarlyEnd | None:
        """Take in who waits now; say whether, and how far, the load has outgrown the server."""
        waits_since_s = under_way.scheduled_s[np.isnan(under_way.first_token_s)]
        self._times_s.append(now_s)
        self._waiting.append(float(waits_since_s.size))
        half_s = (self._load_start_s + now_s) / 2.0
        middle_s = (half_s + now_s) / 2.0
        arrived = int(np.sum(sent_s > half_s))
        if now_s - self._load_start_s < _LEAST_LOAD_S or arrived < _LEAST_ARRIVALS:
            return None
        before, between = np.interp([half_s, middle_s], self._times_s, self._waiting)
        grown = waits_since_s.size - before
        if not before < between < waits_since_s.size or grown <= _GROWTH_SHARE * arrived:
            return None
        walk = math.sqrt(self._dispersion(sent_s, now_s) * arrived)
        if grown <= self._sigmas(slos, waits_since_s, now_s) * walk:
            return None
        return EarlyEnd(
            overload_sentence(
                arrived, f"the last {now_s - half_s:.0f} s", grown, f"{before:.0f} that waited"
            ),
            None,
        )

    def _dispersion(self, sent_s: FloatArray, now_s: float) -> float:
        """Return variance / mean of how many arrive in equal times; at least that of Poisson's."""
        edges_s = np.linspace(self._load_start_s, now_s, _COUNT_BINS + 1)
        counts = np.histogram(sent_s, edges_s)[0]
        return max(1.0, float(counts.var(ddof=1) / counts.mean()))

    @staticmethod
    def _sigmas(slos: tuple[Slo, ...], waits_since_s: FloatArray, now_s: float) -> float:
        waiting = ("ttft_ms", *WHOLE_ANSWER)
        bounds_ms = [s.bound for s in slos if s.metric.partition("_")[2] in waiting]
        if not bounds_ms:
            return _GROWTH_SIGMAS_ALONE
        past = np.median(1e3 * (now_s - waits_since_s)) > min(bounds_ms)
        return _GROWTH_SIGMAS if past else math.inf
