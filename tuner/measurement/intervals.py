"""Batch means: 95 % intervals of the metrics of one steady window.

Observations within a window are correlated: requests share batches, and a batch changes as slowly
as its requests end. So a window is cut into batches of equal time. Their spread is inflated by
their lag-1 correlation (an AR(1) process), with Student's t for the effective number of independent
batches. Errors that are constant over a run, such as the gain of a power sensor, do not show within
it: they take repeats (`tuner.measurement.statistics.compare`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tuner.measurement.requests.latencies import (
    e2el_ms,
    finished_within,
    hopeless_after_ms,
    is_good,
    started_within,
    token_gaps_ms,
    tpot_ms,
    ttft_ms,
    waits_at,
)
from tuner.measurement.requests.made import made_per_batch, units_of, whole_answers
from tuner.measurement.statistics.student_t import student_t_quantile
from tuner.metrics import OUTPUT_KINDS, TEXT, Output
from tuner.records import FloatArray, RawRun

LEVEL = 0.95
BATCHES = 16
# A window that holds fewer lifetimes of its requests has not seen its own variation.
LEAST_LIFETIMES = 4.0
# From so many on, twice as many batches are still long enough, and tell their correlation better.
_MANY_LIFETIMES = 20.0
_TAIL = (1.0 - LEVEL) / 2.0
_LEAST_REQUESTS = 10
# A closed loop's batches may well make up for each other, but so few can seem to by chance.
_LEAST_CORRELATION = -0.1
_MOST_CORRELATION = 0.95
SHARES: Mapping[str, float] = MappingProxyType({"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99})
# Into how many stretches to cut for a quantile, and how many requests past it each has to have.
_SECTIONS = ((8, 3.0), (5, 2.0))


@dataclass(frozen=True, slots=True)
class Interval:
    """Holds the true value in 95 % of measurements; both ends in the metric's unit."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's length."""
        return (self.high - self.low) / 2.0


def told(value: float, interval: Interval) -> Interval | None:
    """Return the interval, or None if half of it is wider than its value.

    Too few batches or repeats give such an interval: it says no more than that nothing is known.
    """
    return interval if interval.half_width <= value else None


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """A latency of N requests (N,), each with the time at which it counts (N,)."""

    times_s: FloatArray
    values: FloatArray


@dataclass(frozen=True, slots=True)
class _Spread:
    """Standard error of a sum over batches, and its degrees of freedom."""

    error: float
    freedom: float


def _spread(residuals: FloatArray, *, centre: bool = False) -> _Spread:
    """Return the error of the sum of correlated residuals (B,) around 0.

    The lag-1 correlation of few values is estimated too low by (1 + 4 r) / n (Kendall), and their
    variance by 1 / (independent values). `centre` takes the mean off for the correlation.
    """
    n = residuals.size
    square = float(residuals @ residuals)
    if square == 0.0:
        return _Spread(0.0, n - 1.0)
    around = residuals - residuals.mean() if centre else residuals
    spread = float(around @ around)
    sample_correlation = float(around[1:] @ around[:-1]) / spread if spread > 0.0 else 0.0
    correlation = sample_correlation + (1.0 + 4.0 * sample_correlation) / n
    correlation = min(max(correlation, _LEAST_CORRELATION), _MOST_CORRELATION)
    inflation = (1.0 + correlation) / (1.0 - correlation)
    independent = n / inflation
    variance = square / (n - 1) / (1.0 - 1.0 / max(independent, 1.5))
    freedom = min(max(math.floor(independent) - 1.0, 2.0), n - 1.0)
    return _Spread(math.sqrt(n * variance * inflation), freedom)


def batches_for(lifetimes: float) -> int:
    """Return into how many batches to cut a window of so many mean lifetimes of its requests."""
    return BATCHES if lifetimes < _MANY_LIFETIMES else 2 * BATCHES


def product_interval(
    value: float, over: Sequence[FloatArray], under: Sequence[FloatArray]
) -> Interval | None:
    """Return the interval of `value`, a product of sums over batches divided by another.

    For one sum over another this is the ratio estimator; None if a sum is 0, or the batches are too
    few to say (see `told`). Each array holds one
    value per batch, shape (B,).
    """
    sums = [batches.sum() for batches in (*over, *under)]
    if not all(sums):
        return None
    relative = sum((b / b.sum() for b in over), start=np.zeros(over[0].size))
    relative = relative - sum((b / b.sum() for b in under), start=np.zeros(over[0].size))
    spread = _spread(relative)
    half = float(value) * student_t_quantile(1.0 - _TAIL, spread.freedom) * spread.error
    return told(float(value), Interval(max(float(value) - half, 0.0), float(value) + half))


def share_interval(good: FloatArray, counted: FloatArray) -> Interval:
    """Return the interval of sum(good) / sum(counted), a share of requests, per batch (B,).

    Clopper and Pearson's, for as many requests as there are independent ones (Korn and Graubard).
    """
    total = float(counted.sum())
    share = float(good.sum()) / total
    independent = independent_requests(good, counted, share)
    hits, misses = share * independent, (1.0 - share) * independent
    from scipy.special import betaincinv

    low = float(betaincinv(hits, misses + 1.0, _TAIL)) if hits > 0.0 else 0.0
    high = float(betaincinv(hits + 1.0, misses, 1.0 - _TAIL)) if misses > 0.0 else 1.0
    return Interval(low, high)


def percentile_interval(
    samples: Samples, share: float, start_s: float, end_s: float
) -> Interval | None:
    """Return the interval of a quantile, or None where the samples are too few to say.

    With enough requests in each of a few stretches of time: from the quantile of each, on the log
    scale, because a latency's tail is long on one side. Else from two order statistics, at the
    levels that hold the quantile of as many independent requests.
    """
    return percentile_intervals(samples, [share], start_s, end_s)[0]


def percentile_intervals(
    samples: Samples, shares: Sequence[float], start_s: float, end_s: float
) -> list[Interval | None]:
    """Return the intervals of some quantiles, each as `percentile_interval` does."""
    times_s, values = samples.times_s, samples.values
    if values.size < _LEAST_REQUESTS:
        return [None] * len(shares)
    by_share: dict[float, Interval | None] = {}
    for sections, tail in _SECTIONS if values.min() > 0.0 else ():
        section = batch_of(times_s, start_s, end_s, sections)
        fewest = np.bincount(section, minlength=sections).min()
        enough = [
            share
            for share in shares
            if share not in by_share and fewest >= max(5.0, tail / (1.0 - share))
        ]
        if enough:
            by_share |= _section_intervals(values, section, sections, enough)
    for share in shares:
        if share not in by_share:
            by_share[share] = _order_interval(samples, share, start_s, end_s)
    return [by_share[share] for share in shares]


def _section_intervals(
    values: FloatArray, section: NDArray[np.intp], sections: int, shares: Sequence[float]
) -> dict[float, Interval | None]:
    logs = np.log(values)
    parts = np.array([np.quantile(logs[section == i], shares) for i in range(sections)])
    intervals_by_share: dict[float, Interval | None] = {}
    for place, (share, quantile) in enumerate(
        zip(shares, np.quantile(logs, shares, overwrite_input=True).tolist(), strict=True)
    ):
        spread = _spread(np.ascontiguousarray(parts[:, place]) - quantile, centre=True)
        half = student_t_quantile(1.0 - _TAIL, spread.freedom) * spread.error / sections
        low, high = math.exp(quantile - half), math.exp(quantile + half)
        intervals_by_share[share] = told(math.exp(quantile), Interval(low, high))
    return intervals_by_share


def _order_interval(
    samples: Samples, share: float, start_s: float, end_s: float
) -> Interval | None:
    """Return two order statistics around a quantile.

    A few late requests cannot show how they come together. So they are taken to be correlated as
    much as all latencies are, by their ranks, if that is more.
    """
    n = samples.values.size
    ranked = np.sort(samples.values)
    ranks = np.searchsorted(ranked, samples.values, side="right") / n
    batch = batch_of(samples.times_s, start_s, end_s, BATCHES)
    counted = np.bincount(batch, minlength=BATCHES).astype(np.float64)
    below: FloatArray = (samples.values <= np.quantile(ranked, share)).astype(np.float64)
    shared = max(1.0, _design_effect(below, batch, counted), _design_effect(ranks, batch, counted))
    independent = n / shared
    low = _binomial_quantile(_TAIL, independent, share) / independent
    high = (_binomial_quantile(1.0 - _TAIL, independent, share) + 1.0) / independent
    if low <= 0.0 or high > 1.0:
        return None
    first, last = max(math.floor(low * n) - 1, 0), min(math.ceil(high * n) - 1, n - 1)
    return Interval(float(ranked[first]), float(ranked[last]))


def _design_effect(values: FloatArray, batch: NDArray[np.intp], counted: FloatArray) -> float:
    """Return the variance of the mean / that of as many independent values; 0 for equal ones."""
    variance = float(values.var())
    if variance == 0.0:
        return 0.0
    sums = np.bincount(batch, weights=values, minlength=counted.size)
    error = _spread((sums - float(values.mean()) * counted) / values.size).error
    return values.size * error**2 / variance


def independent_requests(part: FloatArray, counted: FloatArray, share: float) -> float:
    """Return how many independent requests tell as much of a share as these, per batch (B,)."""
    total = float(counted.sum())
    spread = _spread((part - share * counted) / total)
    if spread.error == 0.0:
        return total
    return min(total, share * (1.0 - share) / spread.error**2)


def _binomial_quantile(probability: float, trials: float, share: float) -> float:
    """Return the least k, a real number, with P(Binomial <= k) >= `probability`; from -1.

    `trials` is a real number too, so that this is found by bisection of the beta distribution.
    """
    from scipy.special import betainc

    low, high = -1.0, trials
    for _ in range(40):
        k = (low + high) / 2.0
        reaches = betainc(trials - k, k + 1.0, 1.0 - share) >= probability
        low, high = (low, k) if reaches else (k, high)
    return high


def batch_of(times_s: FloatArray, start_s: float, end_s: float, batches: int) -> NDArray[np.intp]:
    """Return the number of the stretch of (start, end] that each time (N,) lies in, shape (N,)."""
    edges_s = np.linspace(start_s, end_s, batches + 1)
    batch: NDArray[np.intp] = np.searchsorted(edges_s, times_s, side="left") - 1
    return np.clip(batch, 0, batches - 1)


def intervals(run: RawRun, request_limits_ms: Mapping[str, float]) -> Mapping[str, Interval]:
    """Return the 95 % interval of each metric of `reduce_run` for which one can be had.

    There is none where the window is too short for its requests, and none for a percentile that too
    few requests speak of. `run` is one that `reduce_run` has accepted.
    """
    window = _Window(whole_answers(run))
    if not window.long_enough:
        return MappingProxyType({})
    by_metric = window.rates() | window.goodput(request_limits_ms) | window.latencies()
    return MappingProxyType({k: interval for k, interval in by_metric.items() if interval})


class _Window:
    """The steady window of a run, cut into batches."""

    def __init__(self, run: RawRun) -> None:
        self._run = run
        self._start_s, self._end_s = run.window_start_s, run.window_end_s
        self._length_s = self._end_s - self._start_s
        self._finished = finished_within(run.requests, self._start_s, self._end_s)
        self._ends_s = np.array([r.token_times_s[-1] for r in self._finished])
        lifetimes_s = [r.token_times_s[-1] - r.sent_s for r in self._finished]
        self._lifetimes = self._length_s / float(np.mean(lifetimes_s)) if lifetimes_s else 0.0
        self._batches = batches_for(self._lifetimes)
        self._done = self._sums(self._ends_s)
        self._seconds = np.full(self._batches, self._length_s / self._batches)

    @property
    def long_enough(self) -> bool:
        """Say whether enough requests, and enough of their lifetimes, are in the window."""
        # up to one lifetime went where the window was cut to whole answers
        least = LEAST_LIFETIMES - (not self._run.output.is_text)
        return len(self._finished) >= _LEAST_REQUESTS and self._lifetimes >= least

    def rates(self) -> dict[str, Interval | None]:
        """Intervals of energy, power and throughput."""
        kind = OUTPUT_KINDS[self._run.output]
        counted = TEXT if kind.output.is_text else kind
        edges_s = np.linspace(self._start_s, self._end_s, self._batches + 1)
        tokens = made_per_batch(self._run, edges_s)
        output_tokens = np.array([units_of(r) for r in self._finished])
        power = self._run.power
        joules = np.diff(np.interp(edges_s, power.times_s, power.energy_j))
        seconds, done, output = self._seconds, self._done, self._sums(self._ends_s, output_tokens)
        used, made = joules.sum(), tokens.sum()
        per_request = product_interval(
            float(used / made * output.sum() / done.sum()), [joules, output], [tokens, done]
        )
        requests_per_s = product_interval(done.sum() / self._length_s, [done], [seconds])
        of_answers = {kind.energy: per_request, kind.throughput: requests_per_s}
        return {
            **(of_answers if kind.output is Output.ANSWER else {}),
            counted.energy: product_interval(used / made, [joules], [tokens]),
            "energy_per_request_j": per_request,
            **self._input_energy(joules),
            "mean_power_w": product_interval(used / self._length_s, [joules], [seconds]),
            counted.throughput: product_interval(made / self._length_s, [tokens], [seconds]),
            "request_throughput_req_s": requests_per_s,
        }

    def _input_energy(self, joules: FloatArray) -> dict[str, Interval | None]:
        """Interval of the energy per prompt token; `joules` is the energy of each batch."""
        if not self._run.output.is_text:
            return {}
        started = started_within(self._run.requests, self._start_s, self._end_s)
        firsts_s = np.array([r.token_times_s[0] for r in started])
        read = self._sums(firsts_s, np.array([r.prompt_tokens for r in started], dtype=np.float64))
        total = float(read.sum())
        known = product_interval(float(joules.sum()) / total, [joules], [read]) if total else None
        return {"energy_per_input_token_j": known}

    def goodput(self, limits_ms: Mapping[str, float]) -> dict[str, Interval | None]:
        """Intervals of goodput and of attainment, over the requests that `reduce_run` counts."""
        good = self._sums(
            self._ends_s, np.array([float(is_good(r, limits_ms)) for r in self._finished])
        )
        late_s = self._hopeless_s(hopeless_after_ms(limits_ms))
        return {
            "goodput_req_s": product_interval(good.sum() / self._length_s, [good], [self._seconds]),
            "slo_attainment": share_interval(good, self._done + self._sums(late_s)),
        }

    def latencies(self) -> dict[str, Interval | None]:
        """Intervals of means and percentiles; a gap between tokens counts where it ends."""
        by_metric: dict[str, Interval | None] = {}
        for name, samples in self._samples().items():
            if samples.values.size < _LEAST_REQUESTS:
                continue
            batch = batch_of(samples.times_s, self._start_s, self._end_s, self._batches)
            sums, counts = (self._per_batch(batch, weights) for weights in (samples.values, None))
            mean = float(samples.values.mean())
            by_metric[f"mean_{name}"] = product_interval(mean, [sums], [counts])
            shares = list(SHARES.values())
            found = percentile_intervals(samples, shares, self._start_s, self._end_s)
            by_metric |= {f"{k}_{name}": known for k, known in zip(SHARES, found, strict=True)}
        return by_metric

    def _samples(self) -> dict[str, Samples]:
        whole = _present(self._ends_s, [e2el_ms(r) for r in self._finished])
        if not self._run.output.is_text:
            return dict.fromkeys(OUTPUT_KINDS[self._run.output].latencies, whole)
        started = started_within(self._run.requests, self._start_s, self._end_s)
        firsts_s = np.array([r.token_times_s[0] for r in started])
        return {
            "ttft_ms": _present(firsts_s, [ttft_ms(r) for r in started]),
            "tpot_ms": _present(self._ends_s, [tpot_ms(r) for r in self._finished]),
            "e2el_ms": whole,
            "itl_ms": Samples(*token_gaps_ms(self._run.requests, self._start_s, self._end_s)),
        }

    def _hopeless_s(self, late_ms: float | None) -> FloatArray:
        """Return when each request that has no token yet passed the limit."""
        if late_ms is None:
            return np.empty(0)
        late_s = np.array(
            [r.scheduled_s + late_ms / 1e3 for r in self._run.requests if waits_at(r, self._end_s)]
        )
        return late_s[late_s < self._end_s]

    def _sums(self, times_s: FloatArray, weights: FloatArray | None = None) -> FloatArray:
        batch = batch_of(times_s, self._start_s, self._end_s, self._batches)
        return self._per_batch(batch, weights)

    def _per_batch(self, batch: NDArray[np.intp], weights: FloatArray | None) -> FloatArray:
        return np.bincount(batch, weights=weights, minlength=self._batches).astype(np.float64)


def _present(times_s: FloatArray, values: Sequence[float | None]) -> Samples:
    is_present = np.array([v is not None for v in values], dtype=bool)
    present = np.array([v for v in values if v is not None], dtype=np.float64)
    return Samples(times_s[is_present], present)
