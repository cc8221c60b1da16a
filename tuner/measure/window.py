"""When the steady window begins and ends, decided while the load runs."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

import numpy as np

from tuner.measure.intervals import (
    LEAST_LIFETIMES,
    Interval,
    Samples,
    batches_for,
    percentile_interval,
    product_interval,
)
from tuner.records import FloatArray

_STATISTIC_SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
# The load is looked at again after so much more time, a share of the time since it began.
_LOOK_SHARE = 0.05
_LEAST_LOOK_S = 0.25
_WARMUP_BINS = 40
# What has settled is a small part of what was seen since; waiting costs nothing, because the window
# begins where the part ends.
_MOST_CUT = 0.25
# The long requests among the first ones are still under way when as many have ended as are.
_TURNOVERS = 1.5
# What changes slowly cannot be seen in less time, a share of the shortest window.
_LEAST_WARMUP_SHARE = 0.1
# A window ends early only if it was precise enough so many times in a row: luck does not last.
_LOOKS_IN_A_ROW = 2
_DRAINED_SHARE = 0.15
_DRAINED_GAPS = 3.0
_LEAST_SENT = 10


@dataclass(frozen=True, slots=True)
class Precision:
    """How long a window goes on: until its 95 % intervals are narrow enough.

    Attributes:
        min_window_s: no window is shorter.
        max_window_s: the window ends here, narrow enough or not.
        energy_share: target for energy per output token, half-width / value. While no energy is
            reported, the target for the rate at which requests finish.
        percentile_share: the same for each of `percentiles`.
        percentiles: metrics such as `p99_tpot_ms`; `itl_ms` and means are not watched.
    """

    min_window_s: float = 20.0
    max_window_s: float = 300.0
    energy_share: float = 0.02
    percentile_share: float = 0.05
    percentiles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.min_window_s <= self.max_window_s:
            raise ValueError(
                f"expected 0 < min_window_s <= max_window_s, found {self.min_window_s:g} and "
                f"{self.max_window_s:g}"
            )


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How long the steady window is, and when to stop waiting for it to begin.

    Attributes:
        window_s: length of the steady window, unless `precision` decides it.
        warmup_limit_s: the window begins at the latest this long after the load, settled or not.
        precision: what the window's length adapts to; None for a fixed length.
    """

    window_s: float = 60.0
    warmup_limit_s: float = 180.0
    precision: Precision | None = None

    @property
    def shortest_window_s(self) -> float:
        """No window is shorter, unless the load drains."""
        return self.window_s if self.precision is None else self.precision.min_window_s

    @property
    def longest_window_s(self) -> float:
        """No window is longer."""
        return self.window_s if self.precision is None else self.precision.max_window_s


class SteadyWindow:
    """A `SteadyWatch` that also looks at tokens, energy and latencies where it is told of them.

    Warm-up: the requests sent into an empty server meet a load that no later request meets, so half
    as many again must have ended as are under way. From then on the window begins where the rates
    since the start of the load have settled, by MSER (White 1997): the beginning is cut off after
    which the mean is known best. That may lie a little in the past. An over-saturated open loop
    never settles, so there is a limit.

    Drain: the window ends with the last request sent, once requests go on ending and none is sent.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._seen = _Seen()
        self._load_start_s: float | None = None
        self._under_way = 0
        self._turned_over_s: float | None = None
        self._next_look_s = -math.inf
        self._window_start_s: float | None = None
        self._decided_end_s: float | None = None
        self._narrow_looks = 0
        self._drain = _Drain()
        self.settled = False
        # whether the window is precise enough; None if it was not asked to be
        self.precise: bool | None = None if plan.precision is None else False

    def started(self, now_s: float) -> None:
        """The load begins."""
        self._load_start_s = now_s

    def sent(self, now_s: float) -> None:
        """A request was sent."""
        self._under_way += 1
        self._seen.sent_s.append(now_s)
        self._drain.sent(now_s)
        self._look(now_s)

    def finished(self, now_s: float) -> None:
        """A request ended."""
        self._under_way -= 1
        self._seen.finished_s.append(now_s)
        if self._drain.finished(now_s, self._under_way):
            self.exhausted(self._drain.last_sent_s)
        self._look(now_s)

    def sampled(self, now_s: float, energy_j: float, tokens: float) -> None:
        """Report the energy used and the output tokens made since some fixed time."""
        self._seen.sampled_s.append(now_s)
        self._seen.energy_j.append(energy_j)
        self._seen.tokens.append(tokens)

    def answered(self, now_s: float, scheduled_s: float, first_token_s: float, tokens: int) -> None:
        """Report the latencies of a request whose last token has come; before `finished`."""
        self._seen.answered(now_s, scheduled_s, first_token_s, tokens)

    def exhausted(self, now_s: float) -> None:
        """No request is sent after `now_s`: what comes is drain, and no part of the window."""
        self._begin_by_limit(now_s)
        if self._decided_end_s is None:
            self._decided_end_s = max(now_s, self._window_start_s or now_s)

    def _look(self, now_s: float) -> None:
        if self._load_start_s is None or self._decided_end_s is not None:
            return
        self._begin_by_limit(now_s)
        if now_s < self._next_look_s:
            return
        if self._window_start_s is None:
            self._look_at_warmup(now_s, self._load_start_s)
        else:
            self._look_at_precision(now_s, self._window_start_s)

    def _look_later(self, now_s: float, since_s: float) -> None:
        self._next_look_s = now_s + max(_LEAST_LOOK_S, _LOOK_SHARE * (now_s - since_s))

    def _begin_by_limit(self, now_s: float) -> None:
        if self._load_start_s is None or self._window_start_s is not None:
            return
        limit_s = self._load_start_s + self._plan.warmup_limit_s
        if now_s >= limit_s:
            self._window_start_s = limit_s

    def _look_at_warmup(self, now_s: float, load_start_s: float) -> None:
        ended = len(self._seen.finished_s)
        least_s = _LEAST_WARMUP_SHARE * self._plan.shortest_window_s
        young = now_s - load_start_s < least_s
        if young or ended == 0 or ended < _TURNOVERS * self._under_way:
            return
        if self._turned_over_s is None:
            self._turned_over_s = now_s
        cut_s = self._seen.settled_from_s(load_start_s, now_s)
        if cut_s is None:
            self._look_later(now_s, load_start_s)
            return
        self.settled = True
        self._window_start_s = max(self._turned_over_s, cut_s)
        self._look_later(now_s, self._window_start_s)

    def _look_at_precision(self, now_s: float, start_s: float) -> None:
        precision = self._plan.precision
        if precision is None:
            return
        if not precision.min_window_s <= now_s - start_s < precision.max_window_s:
            return
        self._look_later(now_s, start_s)
        narrow = self._seen.is_precise(precision, start_s, now_s, self._under_way)
        self._narrow_looks = self._narrow_looks + 1 if narrow else 0
        if self._narrow_looks >= _LOOKS_IN_A_ROW:
            self._decided_end_s, self.precise = now_s, True

    @property
    def window_start_s(self) -> float | None:
        """When the steady window began, or None while warming up."""
        return self._window_start_s

    @property
    def window_end_s(self) -> float | None:
        """When the load is to end: at the latest after the warm-up limit and one window."""
        if self._decided_end_s is not None:
            return self._decided_end_s
        if self._load_start_s is None:
            return None
        start_s = self._window_start_s
        if start_s is None:
            start_s = self._load_start_s + self._plan.warmup_limit_s
        return start_s + self._plan.longest_window_s


class _Drain:
    """Sees that requests are no longer replaced.

    Either of two signs alone lies: no request is sent for long while a server stalls, and several
    end in a row by chance. So: a share of the load has ended unreplaced, and after that several of
    the longest gaps between two requests have passed without another.
    """

    def __init__(self) -> None:
        self.last_sent_s = -math.inf
        self._sent = 0
        self._longest_gap_s = 0.0
        self._unreplaced = 0
        self._drained_since_s: float | None = None

    def sent(self, now_s: float) -> None:
        if self._sent:
            self._longest_gap_s = max(self._longest_gap_s, now_s - self.last_sent_s)
        self._sent += 1
        self.last_sent_s = now_s
        self._unreplaced = 0
        self._drained_since_s = None

    def finished(self, now_s: float, under_way: int) -> bool:
        """Count a request that ended; say whether the load drains."""
        self._unreplaced += 1
        if self._sent < _LEAST_SENT or self._unreplaced < 3:
            return False
        if self._drained_since_s is None:
            if self._unreplaced >= _DRAINED_SHARE * (under_way + self._unreplaced):
                self._drained_since_s = now_s
            return False
        return now_s - self._drained_since_s > _DRAINED_GAPS * self._longest_gap_s


class _Seen:
    """What was reported so far, in columns; looked at a few dozen times in a run."""

    def __init__(self) -> None:
        self.sent_s = array("d")
        self.finished_s = array("d")
        self.sampled_s = array("d")
        self.energy_j = array("d")
        self.tokens = array("d")
        self._answered_s = array("d")
        self._latencies_ms = {name: array("d") for name in ("ttft_ms", "tpot_ms", "e2el_ms")}

    @property
    def has_samples(self) -> bool:
        return len(self.sampled_s) > 1

    def answered(self, now_s: float, scheduled_s: float, first_token_s: float, tokens: int) -> None:
        per_token_s = (now_s - first_token_s) / (tokens - 1) if tokens > 1 else math.nan
        self._answered_s.append(now_s)
        self._latencies_ms["ttft_ms"].append((first_token_s - scheduled_s) * 1e3)
        self._latencies_ms["tpot_ms"].append(per_token_s * 1e3)
        self._latencies_ms["e2el_ms"].append((now_s - scheduled_s) * 1e3)

    def settled_from_s(self, load_start_s: float, now_s: float) -> float | None:
        """Return since when every rate is steady, or None while one is not."""
        edges_s = np.linspace(load_start_s, now_s, _WARMUP_BINS + 1)
        sent = np.searchsorted(_column(self.sent_s), edges_s, side="right")
        finished = np.searchsorted(_column(self.finished_s), edges_s, side="right")
        series = [np.diff(finished).astype(np.float64), (sent - finished)[1:].astype(np.float64)]
        if self.has_samples:
            series += [np.diff(self._until(edges_s, of)) for of in (self.energy_j, self.tokens)]
        cuts = [_mser(values) for values in series]
        if max(cuts) > _MOST_CUT * _WARMUP_BINS:
            return None
        return float(edges_s[max(cuts)])

    def is_precise(
        self, precision: Precision, start_s: float, now_s: float, under_way: int
    ) -> bool:
        """Say whether every interval that is asked for is narrow enough."""
        finished_s = _column(self.finished_s)
        finished = finished_s.size - int(np.searchsorted(finished_s, start_s, side="right"))
        # Little's law: mean lifetime = requests under way / rate at which they end
        lifetimes = finished / max(under_way, 1)
        if lifetimes < LEAST_LIFETIMES:
            return False
        batches = batches_for(lifetimes)
        rate = self._main_interval(start_s, now_s, batches)
        if rate is None or not _narrow(rate, precision.energy_share):
            return False
        return all(
            self._narrow_percentile(metric, precision.percentile_share, start_s, batches)
            for metric in precision.percentiles
        )

    def _main_interval(self, start_s: float, now_s: float, batches: int) -> Interval | None:
        until_s = min(now_s, self.sampled_s[-1]) if self.has_samples else now_s
        if until_s <= start_s:
            return None
        edges_s = np.linspace(start_s, until_s, batches + 1)
        if self.has_samples:
            joules = np.diff(self._until(edges_s, self.energy_j))
            return product_interval(1.0, [joules], [np.diff(self._until(edges_s, self.tokens))])
        ends = np.searchsorted(_column(self.finished_s), edges_s, side="right")
        counts = np.diff(ends).astype(np.float64)
        return product_interval(1.0, [counts], [np.diff(edges_s)])

    def _narrow_percentile(
        self, metric: str, half_width: float, start_s: float, batches: int
    ) -> bool:
        statistic, _, latency = metric.partition("_")
        share, column = _STATISTIC_SHARES.get(statistic), self._latencies_ms.get(latency)
        if share is None or column is None or not self._answered_s:
            return True  # not watched
        times_s, values = _column(self._answered_s), _column(column)
        keep = (times_s > start_s) & ~np.isnan(values)
        if not keep.any():
            return False
        samples = Samples(times_s[keep], values[keep])
        found = percentile_interval(samples, share, start_s, float(times_s[-1]), batches)
        return found is not None and _narrow(found, half_width)

    def _until(self, times_s: FloatArray, column: array[float]) -> FloatArray:
        return np.interp(times_s, _column(self.sampled_s), _column(column))


def _column(values: array[float]) -> FloatArray:
    return np.array(values, dtype=np.float64)


def _narrow(found: Interval, share: float) -> bool:
    return found.high > 0.0 and found.half_width <= share * (found.low + found.high) / 2.0


def _mser(values: FloatArray) -> int:
    """Return how many leading values to leave out, at most half of them (MSER, White 1997).

    The number for which the squared standard error of the mean of the rest is the smallest.
    """
    most = values.size // 2
    errors = [values[cut:].var() / (values.size - cut) for cut in range(most + 1)]
    return int(np.argmin(errors))
