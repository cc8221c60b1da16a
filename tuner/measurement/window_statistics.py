"""Statistics of a steady window so far: since when it is steady, and how precise it is."""

from __future__ import annotations

import math
from array import array

import numpy as np

from tuner.measurement.intervals import (
    LEAST_LIFETIMES,
    SHARES,
    Interval,
    Samples,
    batches_for,
    percentile_interval,
    product_interval,
)
from tuner.measurement.precision import Precision
from tuner.metrics import WHOLE_ANSWER
from tuner.records import FloatArray

_WARMUP_BINS = 40
_LATEST = 50
# What has settled is a small part of what was seen since; waiting costs nothing, because the window
# begins where the part ends.
_MOST_CUT = 0.25


class WindowStatistics:
    """What was reported so far, in columns; looked at a few dozen times in a run."""

    def __init__(self) -> None:
        import scipy.special  # noqa: F401  # a third of a second, better now than under a load

        self.sent_s = array("d")
        self.finished_s = array("d")
        self.sampled_s = array("d")
        self.energy_j = array("d")
        self.tokens = array("d")
        self.answered_s = array("d")
        known = ("ttft_ms", "tpot_ms", *WHOLE_ANSWER)
        self.latencies_ms = {name: array("d") for name in known}

    @property
    def has_samples(self) -> bool:
        """Say whether energy and tokens were reported."""
        return len(self.sampled_s) > 1

    def answered(self, now_s: float, scheduled_s: float, first_token_s: float, tokens: int) -> None:
        """Take in the latencies of a request that has ended."""
        per_token_s = (now_s - first_token_s) / (tokens - 1) if tokens > 1 else math.nan
        self.answered_s.append(now_s)
        self.latencies_ms["ttft_ms"].append((first_token_s - scheduled_s) * 1e3)
        self.latencies_ms["tpot_ms"].append(per_token_s * 1e3)
        for name in WHOLE_ANSWER:
            self.latencies_ms[name].append((now_s - scheduled_s) * 1e3)

    def latest_ms(self, latency: str) -> float | None:
        """Return the median latency of the latest answers, None before the first."""
        latest = np.array(self.latencies_ms[latency][-_LATEST:], dtype=np.float64)
        present = latest[~np.isnan(latest)]
        return float(np.median(present)) if present.size else None

    def steady_from_s(self, load_start_s: float, now_s: float) -> float | None:
        """Return since when every rate is steady, or None while one is not."""
        edges_s = np.linspace(load_start_s, now_s, _WARMUP_BINS + 1)
        sent = np.searchsorted(as_column(self.sent_s), edges_s, side="right")
        finished = np.searchsorted(as_column(self.finished_s), edges_s, side="right")
        series = [np.diff(finished).astype(np.float64), (sent - finished)[1:].astype(np.float64)]
        if self.has_samples:
            series += [np.diff(self._until(edges_s, of)) for of in (self.energy_j, self.tokens)]
        most = 0
        for values in series:
            most = max(most, _mser(values))
            if most > _MOST_CUT * _WARMUP_BINS:
                return None
        return float(edges_s[most])

    def is_precise(
        self, precision: Precision, start_s: float, now_s: float, under_way: int
    ) -> bool:
        """Say whether every interval that is asked for is narrow enough."""
        finished_s = as_column(self.finished_s)
        finished = finished_s.size - int(np.searchsorted(finished_s, start_s, side="right"))
        # Little's law: mean lifetime = requests under way / rate at which they end
        lifetimes = finished / max(under_way, 1)
        if lifetimes < LEAST_LIFETIMES:
            return False
        batches = batches_for(lifetimes)
        rate = self._main_interval(start_s, now_s, batches)
        if rate is None or not _narrow(rate, precision.energy_share):
            return False
        return all(self._is_known(metric, precision, start_s) for metric in precision.percentiles)

    def _main_interval(self, start_s: float, now_s: float, batches: int) -> Interval | None:
        until_s = min(now_s, self.sampled_s[-1]) if self.has_samples else now_s
        if until_s <= start_s:
            return None
        edges_s = np.linspace(start_s, until_s, batches + 1)
        if self.has_samples:
            joules = np.diff(self._until(edges_s, self.energy_j))
            return product_interval(1.0, [joules], [np.diff(self._until(edges_s, self.tokens))])
        ends = np.searchsorted(as_column(self.finished_s), edges_s, side="right")
        counts = np.diff(ends).astype(np.float64)
        return product_interval(1.0, [counts], [np.diff(edges_s)])

    def _is_known(self, metric: str, precision: Precision, start_s: float) -> bool:
        """Say whether a percentile is narrow enough, or clear of the bound that it has."""
        statistic, _, latency = metric.partition("_")
        share, told = SHARES.get(statistic), self.latencies_ms.get(latency)
        if share is None or told is None or not self.answered_s:
            return True  # not watched
        times_s, values = as_column(self.answered_s), as_column(told)
        keep = (times_s > start_s) & ~np.isnan(values)
        if not keep.any():
            return False
        samples = Samples(times_s[keep], values[keep])
        interval = percentile_interval(samples, share, start_s, float(times_s[-1]))
        if interval is None:
            return False
        return precision.is_clear(metric, interval) or _narrow(interval, precision.percentile_share)

    def _until(self, times_s: FloatArray, told: array[float]) -> FloatArray:
        return np.interp(times_s, as_column(self.sampled_s), as_column(told))


def as_column(values: array[float]) -> FloatArray:
    """Return the values reported so far; a copy, because an array with a view cannot grow."""
    return np.array(values, dtype=np.float64)


def _narrow(interval: Interval, share: float) -> bool:
    middle = (interval.low + interval.high) / 2.0
    return interval.high > 0.0 and interval.half_width <= share * middle


def _mser(values: FloatArray) -> int:
    """Return how many leading values to leave out, at most half of them (MSER, White 1997).

    The number for which the squared standard error of the mean of the rest is the smallest.
    """
    most = values.size // 2
    errors = [_variance(values[cut:]) / (values.size - cut) for cut in range(most + 1)]
    return int(np.argmin(errors))


def _variance(values: FloatArray) -> float:
    """Return the population variance: numpy's own sums, without its checks."""
    around = values - np.add.reduce(values) / values.size
    return float(np.add.reduce(around * around) / values.size)
