"""Verdict on an SLO for traffic that was not measured, from windows on independent stretches.

What a window on another stretch of traffic will show is bounded by the one-sided prediction bound
of a normal variable, on logarithms: mean + t(0.95; n - 1) s sqrt(1 + 1/n) of n windows (Hahn and
Meeker, Statistical Intervals, 1991). In 95 of 100 windows of the same length it is not passed. The
spread s is the configuration's own, shrunk to that of the others on the same stretches, whose
degrees of freedom are added.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tuner.measurement.statistics.student_t import student_t_quantile

LEVEL = 0.95  # the share of windows that are to meet the SLO
LEAST_WINDOWS = 4  # fewer say nothing of a 95 % bound
_MOST_SHARED = 4  # degrees of freedom that the other configurations contribute
_UNLIKELY = 0.05
_LEAST_FOR_A_MEAN = 2
_FAR_WITHIN = -3.0  # a value of 0 has no logarithm
_CLEARLY = 0.25  # a single window this far beyond a bound (a logarithm) is no chance


class SloVerdict(StrEnum):
    """Whether a configuration meets every SLO on traffic that was not measured."""

    MET = "met"
    UNCERTAIN = "uncertain"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Spread:
    """A standard deviation from stretch to stretch, and its degrees of freedom; 0 is unknown."""

    value: float
    freedom: int


UNKNOWN = Spread(0.0, 0)


def pooled_spread(groups: Iterable[Sequence[float]]) -> Spread:
    """Return the spread within groups of values."""
    kept = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in kept)
    if not freedom:
        return UNKNOWN
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in kept)
    return Spread(math.sqrt(squares / freedom), freedom)


def _spread_of(values: Sequence[float], others: Spread) -> Spread:
    """Return the spread of a configuration's values, shrunk to that of the others.

    Few windows say little of their own spread. The others' counts as at most `_MOST_SHARED` values.
    """
    own, shared = pooled_spread([values]), min(others.freedom, _MOST_SHARED)
    freedom = own.freedom + shared
    if not freedom:
        return UNKNOWN
    squares = own.freedom * own.value**2 + shared * others.value**2
    return Spread(math.sqrt(squares / freedom), freedom)


def prediction_bound(values: Sequence[float], others: Spread = UNKNOWN) -> float | None:
    """Return what 95 of 100 further values do not exceed; None for fewer than two values."""
    spread = _spread_of(values, others)
    if len(values) < _LEAST_FOR_A_MEAN or not spread.freedom:
        return None
    factor = student_t_quantile(LEVEL, spread.freedom) * math.sqrt(1.0 + 1.0 / len(values))
    return statistics.fmean(values) + factor * spread.value


def hardly_ever_met(violations: Sequence[float], others: Spread = UNKNOWN) -> bool:
    """Say whether 95 of 100 windows hardly meet an SLO, so that more windows are not worth it.

    That is so if the mean and 1.64 spreads are beyond the bound. Of few windows the spread is
    little known: 1.23 spreads of four, 1.39 of ten.
    """
    if len(violations) < LEAST_WINDOWS:
        return False
    values = [max(v, _FAR_WITHIN) for v in violations]
    spreads = statistics.NormalDist().inv_cdf(LEVEL) * (1.0 - 0.5 / math.sqrt(len(values)))
    return statistics.fmean(values) + spreads * _spread_of(values, others).value > 0.0


def slo_verdict(violations: Sequence[float], others: Spread = UNKNOWN) -> SloVerdict:
    """Return the verdict on one SLO.

    `violations` is log(value / bound) of each window, see `Slo.violation`; `others` the spread of
    the other configurations' windows. The SLO is missed if the
    mean is beyond the bound, or if so many windows are as would be unlikely (5 %) if 95 of 100 met
    it.
    """
    if math.inf in violations:
        return SloVerdict.MISSED
    violations = [max(v, _FAR_WITHIN) for v in violations]
    if not violations:
        return SloVerdict.UNCERTAIN
    mean = statistics.fmean(violations)
    if mean > (0.0 if len(violations) >= _LEAST_FOR_A_MEAN else _CLEARLY):
        return SloVerdict.MISSED
    beyond = sum(v > 0.0 for v in violations)
    if beyond > 1 and _chance_of(beyond, len(violations)) < _UNLIKELY:
        return SloVerdict.MISSED
    bound = prediction_bound(violations, others)
    if len(violations) < LEAST_WINDOWS or bound is None or bound > 0.0:
        return SloVerdict.UNCERTAIN
    return SloVerdict.MET


def _chance_of(beyond: int, windows: int) -> float:
    """Return the probability of at least so many windows beyond, at 5 % each."""
    return sum(
        math.comb(windows, k) * (1.0 - LEVEL) ** k * LEVEL ** (windows - k)
        for k in range(beyond, windows + 1)
    )
