"""Paired comparison with the baseline: each pair was measured on the same stretch of traffic.

What a stretch asks for moves both of a pair, so their ratios have less spread than their values.
One of a pair is measured some steps after the other. Where it is the baseline's in some pairs and
the configuration's in others, the drift of the machine can be told and is taken out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.measurement.intervals import Interval, told
from tuner.measurement.statistics.compare import (
    Comparison,
    Drift,
    interval_around,
    relative,
    verdict_of,
)
from tuner.records import FloatArray

NO_DRIFT = Drift(None, None)
_LEAST_FREEDOM = 3
_LEAST_CHANGE = -0.999  # the logarithm of less is far from any drift
_MOST_SHARED = 4  # degrees of freedom that other configurations' pairs contribute


@dataclass(frozen=True, slots=True)
class Pair:
    """A configuration's value and the baseline's on the same traffic, both above 0.

    `steps` is how many measurements after the baseline's the configuration's was; negative if it
    came before.
    """

    ours: float
    baseline: float
    steps: int = 0

    def __post_init__(self) -> None:
        if not (self.ours > 0.0 and self.baseline > 0.0):
            raise ValueError(f"expected values above 0, found {self.ours:g} and {self.baseline:g}")


@dataclass(frozen=True, slots=True)
class Spread:
    """A standard deviation of log ratios from pair to pair, and its degrees of freedom."""

    value: float = 0.0
    freedom: int = 0


def spread_of_pairs(groups: Iterable[Sequence[Pair]], per_step: float = 0.0) -> Spread:
    """Return the spread within groups, each the pairs of one configuration."""
    kept = [_log_ratios(group, per_step) for group in groups if len(group) > 1]
    freedom = sum(ratios.size - 1 for ratios in kept)
    if not freedom:
        return Spread()
    squares = sum(float(ratios.var(ddof=1)) * (ratios.size - 1) for ratios in kept)
    return Spread(math.sqrt(squares / freedom), freedom)


def drift_of_pairs(
    groups: Sequence[Sequence[Pair]], steps: int, own: Drift = NO_DRIFT
) -> tuple[Drift, float]:
    """Return the drift over so many steps, and the logarithm of it per step.

    Each group are the pairs of one configuration. It is the slope of the log ratios over the steps
    within pairs, the same for all. A drift that is not seen counts as none, and so does one that
    the baseline's `own` repeats do not allow: chance in a few pairs is many times as large over a
    night.
    """
    kept = [group for group in groups if len(group) > 1]
    if not kept:
        return NO_DRIFT, 0.0
    x = np.concatenate([_centred(np.array([float(p.steps) for p in group])) for group in kept])
    y = np.concatenate([_centred(_log_ratios(group)) for group in kept])
    freedom, spread = x.size - len(kept) - 1, float(x @ x)
    if freedom < _LEAST_FREEDOM or spread == 0.0:
        return NO_DRIFT, 0.0
    slope = float(x @ y) / spread
    rest = y - slope * x
    error = math.sqrt(float(rest @ rest) / freedom / spread)
    interval = relative(interval_around(steps * slope, steps * error, freedom))
    drift = Drift(math.expm1(steps * slope), interval)
    if not _allows(own, drift):
        return NO_DRIFT, 0.0
    return drift, slope if drift.seen else 0.0


def compare_pairs(
    metric: str,
    pairs: Sequence[Pair],
    drift: Drift | None = None,
    per_step: float = 0.0,
    others: Spread | None = None,
) -> Comparison:
    """Compare by the log ratios, with Student's t interval; `per_step` is what drifts in a step.

    Few pairs say little of their own spread. That of `others` counts as at most four of them.
    Raises `ValueError` without pairs.
    """
    if not pairs:
        raise ValueError("expected at least one pair, found none")
    ratios = _log_ratios(pairs, per_step)
    mean, interval, error = float(ratios.mean()), None, None
    if ratios.size > 1:
        own, shared = ratios.size - 1, others or Spread()
        more = min(shared.freedom, _MOST_SHARED)
        squares = own * float(ratios.var(ddof=1)) + more * shared.value**2
        error = math.sqrt(squares / (own + more) / ratios.size)
        ends = relative(interval_around(mean, error, own + more))
        interval = told(math.exp(mean), ends)
    return Comparison(
        metric=metric,
        verdict=verdict_of(metric, interval),
        difference=math.expm1(mean),
        interval=interval,
        drift=NO_DRIFT if drift is None else drift,
        log_error=error,
    )


def paired_changes(
    pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
) -> dict[str, float]:
    """Return configuration / baseline - 1 by metric, the geometric mean over the pairs.

    Each pair are all metrics of both on the same traffic. A metric that one of them lacks, or that
    is not above 0, is left out.
    """
    names = set.intersection(*({*ours} & {*theirs} for ours, theirs in pairs)) if pairs else set()
    return {
        name: math.expm1(float(_log_ratios([Pair(a[name], b[name]) for a, b in pairs]).mean()))
        for name in sorted(names)
        if all(a[name] > 0.0 and b[name] > 0.0 for a, b in pairs)
    }


def _allows(own: Drift, drift: Drift) -> bool:
    """Say whether two drifts may be the same, by their 95 % intervals."""
    if own.change is None or own.interval is None or drift.change is None or not drift.interval:
        return True
    apart = math.log1p(drift.change) - math.log1p(own.change)
    return abs(apart) <= math.hypot(_half_log(drift.interval), _half_log(own.interval))


def _half_log(interval: Interval) -> float:
    """Return half the width of an interval of relative changes, as a logarithm."""
    return 0.5 * (math.log1p(interval.high) - math.log1p(max(interval.low, _LEAST_CHANGE)))


def _log_ratios(pairs: Sequence[Pair], per_step: float = 0.0) -> FloatArray:
    ratios = np.log(np.array([p.ours / p.baseline for p in pairs], dtype=np.float64))
    steps = np.array([float(p.steps) for p in pairs])
    without_drift: FloatArray = ratios - per_step * steps
    return without_drift


def _centred(values: FloatArray) -> FloatArray:
    centred: FloatArray = values - values.mean()
    return centred
