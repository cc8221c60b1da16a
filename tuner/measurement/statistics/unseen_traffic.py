"""Verdict on SLOs for traffic that was not measured.

An SLO is met if at most 4.5 of 100 further windows are expected to miss any, so that 5 do; see
`tuner.measurement.statistics.stretch_effects` for what is expected of a window. That chance has in
it what is unknown of the mean and of the spread.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from enum import StrEnum

LEVEL = 0.95  # the share of windows that are to meet the SLO
# The chance of a miss that is allowed. What is recommended is the best of several, some of which
# look better than they are: it misses by a tenth more often (`benchmarks/bench_confirmed.py`).
MOST_MISSES = 0.9 * (1.0 - LEVEL)
LEAST_WINDOWS = 3  # of its own: fewer say little of a configuration
_UNLIKELY = 0.05
_LEAST_FOR_A_MEAN = 2
_FAR_WITHIN = -3.0  # a value of 0 has no logarithm
_CLEARLY = 0.25  # a single window this far beyond a bound (a logarithm) is no chance


class SloVerdict(StrEnum):
    """Whether a configuration meets every SLO on traffic that was not measured."""

    MET = "met"
    UNCERTAIN = "uncertain"
    MISSED = "missed"


def slo_verdict(violations: Sequence[Sequence[float]], miss_chance: float) -> SloVerdict:
    """Return the verdict on all SLOs together.

    `violations` is log(value / bound) of each own window, by SLO, see `Slo.violation`;
    `miss_chance` how likely a further window misses one.
    """
    if any(is_missed(values) for values in violations):
        return SloVerdict.MISSED
    has_windows = all(len(values) >= LEAST_WINDOWS for values in violations)
    is_met = has_windows and miss_chance <= MOST_MISSES
    return SloVerdict.MET if is_met else SloVerdict.UNCERTAIN


def is_missed(violations: Sequence[float]) -> bool:
    """Say whether the own windows alone reject an SLO.

    They do if the mean is beyond the bound, or if so many windows are as would be unlikely (5 %) if
    95 of 100 met it.
    """
    if math.inf in violations:
        return True
    if not violations:
        return False
    mean = statistics.fmean(max(v, _FAR_WITHIN) for v in violations)
    if mean > (0.0 if len(violations) >= _LEAST_FOR_A_MEAN else _CLEARLY):
        return True
    beyond = sum(v > 0.0 for v in violations)
    return beyond > 1 and _chance_of(beyond, len(violations)) < _UNLIKELY


def _chance_of(beyond: int, windows: int) -> float:
    """Return the probability of at least so many windows beyond, at 5 % each."""
    return sum(
        math.comb(windows, k) * (1.0 - LEVEL) ** k * LEVEL ** (windows - k)
        for k in range(beyond, windows + 1)
    )
