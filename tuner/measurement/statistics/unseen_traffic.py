"""Verdict on an SLO for traffic that was not measured, from windows on independent stretches.

What a window on another stretch of traffic will show is bounded by the one-sided prediction bound
of a normal variable, on logarithms: mean + t(0.95; n - 1) s sqrt(1 + 1/n) of n windows (Hahn and
Meeker, Statistical Intervals, 1991). In 95 of 100 windows of the same length it is not passed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from enum import StrEnum

from tuner.measurement.statistics.student_t import student_t_quantile

LEVEL = 0.95  # the share of windows that are to meet the SLO
LEAST_WINDOWS = 4  # fewer say nothing of a 95 % bound
_UNLIKELY = 0.05
_LEAST_FOR_A_MEAN = 2
_FAR_WITHIN = -3.0  # a value of 0 has no logarithm
_CLEARLY = 0.25  # a single window this far beyond a bound (a logarithm) is no chance


class SloVerdict(StrEnum):
    """Whether a configuration meets every SLO on traffic that was not measured."""

    MET = "met"
    UNCERTAIN = "uncertain"
    MISSED = "missed"


def prediction_bound(values: Sequence[float]) -> float | None:
    """Return what 95 of 100 further values do not exceed; None for fewer than two values."""
    if len(values) < _LEAST_FOR_A_MEAN:
        return None
    factor = student_t_quantile(LEVEL, len(values) - 1) * math.sqrt(1.0 + 1.0 / len(values))
    return statistics.fmean(values) + factor * statistics.stdev(values)


def limit_of_prediction(values: Sequence[float]) -> float | None:
    """Return what `prediction_bound` tends to with ever more of such values."""
    if len(values) < _LEAST_FOR_A_MEAN:
        return None
    return statistics.fmean(values) + statistics.NormalDist().inv_cdf(LEVEL) * statistics.stdev(
        values
    )


def slo_verdict(violations: Sequence[float]) -> SloVerdict:
    """Return the verdict on one SLO.

    `violations` is log(value / bound) of each window, see `Slo.violation`. The SLO is missed if the
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
    bound = prediction_bound(violations)
    if len(violations) < LEAST_WINDOWS or bound is None or bound > 0.0:
        return SloVerdict.UNCERTAIN
    return SloVerdict.MET


def _chance_of(beyond: int, windows: int) -> float:
    """Return the probability of at least so many windows beyond, at 5 % each."""
    return sum(
        math.comb(windows, k) * (1.0 - LEVEL) ** k * LEVEL ** (windows - k)
        for k in range(beyond, windows + 1)
    )
