"""Comparison with the baseline: repeats, drift of the machine, and a verdict.

Each run of a configuration has an error of its own (clock, temperature, the power sensor's gain)
that is larger than what its window can tell. So runs are repeated, and the baseline is measured
again and again over the night: a machine that drifts moves both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tuner.measurement.intervals import LEVEL, Interval, told
from tuner.measurement.statistics.student_t import student_t_quantile
from tuner.metrics import Direction, metric_named
from tuner.records import FloatArray

# Repeats that agree to the last digit differ by rounding all the same.
_ROUNDING = 1e-9
_MOST = 700.0  # of a logarithm: e to more than that does not fit into a float
_PROBABILITY = 1.0 - (1.0 - LEVEL) / 2.0


class Verdict(StrEnum):
    """What may be said of a configuration against the baseline."""

    BETTER = "better"
    WORSE = "worse"
    TIED = "tied"  # the interval of the difference holds 0
    UNKNOWN = "unknown"  # too few repeats for an interval


@dataclass(frozen=True, slots=True)
class Repeat:
    """The value of a metric in one run, and when the run was, on any one clock."""

    time_s: float
    value: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of repeats; `interval` is None for fewer than two, or too few to say."""

    mean: float
    interval: Interval | None
    repeats: int


@dataclass(frozen=True, slots=True)
class Drift:
    """What the machine itself changed between the first and the last baseline run.

    `change` is the last expected value of the baseline / the first - 1, by a straight line through
    them, None for a single run; `interval` is None for fewer than three runs.
    """

    change: float | None
    interval: Interval | None

    @property
    def seen(self) -> bool:
        """Say whether the drift is more than the noise of the repeats."""
        return self.interval is not None and not _holds(self.interval, 0.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A configuration against the baseline.

    `difference` is configuration / baseline - 1 with the drift taken out, `interval` its 95 %
    interval (`low` may be negative), `log_error` the standard error of the ratio's logarithm, of
    pairs on the same traffic.
    """

    metric: str
    verdict: Verdict
    difference: float
    interval: Interval | None
    drift: Drift
    log_error: float | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of repeats with Student's t interval.

    Raises `ValueError` without any.
    """
    if not values:
        raise ValueError("expected at least one repeat, found none")
    repeats = np.array(values, dtype=np.float64)
    mean = float(repeats.mean())
    if repeats.size < 2:
        return Estimate(mean, None, repeats.size)
    error = float(repeats.std(ddof=1)) / math.sqrt(repeats.size)
    interval = told(abs(mean), interval_around(mean, error, repeats.size - 1))
    return Estimate(mean, interval, repeats.size)


def pooled_estimates(groups: Sequence[Sequence[float]]) -> list[Estimate]:
    """Return the geometric mean of each group of repeats, with an interval from all of them.

    Two or three repeats say little of their own spread. The relative spread of a run is taken to
    be the same for every configuration of a night, and is pooled. A group with a value that is not
    above 0 stands alone. Raises `ValueError` for a group without any.
    """
    logs = [np.log(np.array(g, dtype=np.float64)) if g and min(g) > 0.0 else None for g in groups]
    pooled = [values for values in logs if values is not None]
    freedom = sum(values.size - 1 for values in pooled)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in pooled)
    error = math.sqrt(squares / freedom) if freedom else 0.0
    estimates = []
    for group, values in zip(groups, logs, strict=True):
        if values is None:
            estimates.append(estimate(group))
            continue
        mean, interval = float(values.mean()), None
        if freedom:
            around = interval_around(mean, error / math.sqrt(values.size), freedom)
            ends = (math.exp(min(end, _MOST)) for end in (around.low, around.high))
            interval = told(math.exp(mean), Interval(*ends))
        estimates.append(Estimate(math.exp(mean), interval, values.size))
    return estimates


def compare(metric: str, runs: Iterable[Repeat], baseline: Iterable[Repeat]) -> Comparison:
    """Compare a configuration's runs with the baseline's.

    Each run is divided by the expected baseline at its time: interpolated between the baseline's
    runs before and after it, or the nearest run outside of them. Runs between the same two baseline
    runs share their error. So the error is propagated exactly, from one variance of a run, pooled
    over the repeats of both, and the weight of each run in the difference.

    Raises `ValueError` without runs or baseline, or for values that are not above 0.
    """
    ours, theirs = _ordered(runs), _ordered(baseline)
    if not ours or not theirs:
        raise ValueError("expected runs of both the configuration and the baseline")
    weights = _weights(ours, theirs)
    log_ours, log_theirs = _logs(ours), _logs(theirs)
    shift = float(log_ours.mean() - weights @ log_theirs)
    error, freedom = _run_error(ours, theirs)
    interval = None
    if freedom >= 1:
        scale = math.sqrt(1.0 / log_ours.size + float(weights @ weights))
        ends = relative(interval_around(shift, error * scale, freedom))
        interval = told(math.exp(shift), ends)
    return Comparison(
        metric=metric,
        verdict=verdict_of(metric, interval),
        difference=math.expm1(shift),
        interval=interval,
        drift=drift_of(theirs),
    )


def drift_of(baseline: Iterable[Repeat]) -> Drift:
    """Return the straight-line drift over the baseline's runs."""
    runs = _ordered(baseline)
    times_s, logs = np.array([r.time_s for r in runs]), _logs(runs)
    if len(runs) < 2 or times_s[-1] == times_s[0]:
        return Drift(None, None)
    elapsed = (times_s - times_s[0]) / (times_s[-1] - times_s[0])
    around = elapsed - elapsed.mean()
    slope = float(around @ logs / (around @ around))
    if len(runs) < 3:
        return Drift(math.expm1(slope), None)
    rest = logs - logs.mean() - slope * around
    error = math.sqrt(float(rest @ rest) / (len(runs) - 2) / float(around @ around))
    return Drift(math.expm1(slope), relative(interval_around(slope, error, len(runs) - 2)))


def _weights(ours: Sequence[Repeat], theirs: Sequence[Repeat]) -> FloatArray:
    """Return the weight of each baseline run in the mean of what is expected at our times."""
    times_s, which, count = np.unique(
        [r.time_s for r in theirs], return_inverse=True, return_counts=True
    )
    at_s = np.array([r.time_s for r in ours])
    at_time = np.array([np.interp(at_s, times_s, column).mean() for column in np.eye(count.size)])
    shared: FloatArray = (at_time / count)[which]
    return shared


def _run_error(ours: Sequence[Repeat], theirs: Sequence[Repeat]) -> tuple[float, int]:
    """Return the standard deviation of a run's logarithm, and its degrees of freedom.

    A drift is no noise: the baseline's spread is that around its straight line. Ours is that around
    the same line, moved.
    """
    times_s = np.array([r.time_s for r in (*ours, *theirs)])
    logs = np.concatenate([_logs(ours), _logs(theirs)])
    groups = [np.repeat([1.0, 0.0], [len(ours), len(theirs)])]
    groups.append(1.0 - groups[0])
    columns = [*groups, times_s - times_s.mean()] if len(theirs) > 2 else groups
    design = np.column_stack(columns)
    solution, _, rank, _ = np.linalg.lstsq(design, logs, rcond=None)
    rest = logs - design @ solution
    freedom = logs.size - int(rank)
    if freedom < 1:
        return 0.0, 0
    return math.sqrt(float(rest @ rest) / freedom), freedom


def verdict_of(metric: str, interval: Interval | None) -> Verdict:
    """Return the verdict by the interval of the relative difference."""
    if interval is None:
        return Verdict.UNKNOWN
    if _holds(interval, 0.0):
        return Verdict.TIED
    lower = interval.high < 0.0
    wanted = metric_named(metric).better is Direction.MIN
    return Verdict.BETTER if lower == wanted else Verdict.WORSE


def _ordered(runs: Iterable[Repeat]) -> list[Repeat]:
    return sorted(runs, key=lambda run: run.time_s)


def _logs(runs: Sequence[Repeat]) -> FloatArray:
    values = np.array([run.value for run in runs], dtype=np.float64)
    if not np.all(values > 0.0):
        raise ValueError(f"expected values above 0, found {values.min():g}")
    return np.log(values)


def interval_around(centre: float, error: float, freedom: int) -> Interval:
    """Return Student's t interval around a mean with this standard error."""
    half = student_t_quantile(_PROBABILITY, freedom) * max(error, _ROUNDING * (abs(centre) + 1.0))
    return Interval(centre - half, centre + half)


def relative(interval: Interval) -> Interval:
    """Return the interval of a ratio - 1 from that of its logarithm."""
    return Interval(*(math.expm1(min(end, _MOST)) for end in (interval.low, interval.high)))


def _holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high
