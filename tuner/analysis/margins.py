"""Margins: how far within an SLO a window of the search has to be to hold on other traffic.

The search compares configurations on one stretch of traffic. On others a latency is longer or
shorter, by a shift that the search's stretch is to blame for and a spread from stretch to stretch.
Both are logarithms, learned from the configurations that were measured on unseen stretches too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.analysis.outcomes import baseline_of, energy_j, measured
from tuner.metrics import LATENCIES
from tuner.slo import Slo
from tuner.store import RepeatRow, TrialRow

# A window holds 95 times in 100 at 1.64 spreads, if the mean is known; it is not quite.
_SPREADS = 1.8
# What is taken for the spread of a latency before anything was repeated, and its weight in windows.
_PRIOR_SPREAD = 0.08
_PRIOR_WEIGHT = 2.0
_FAR = 1.0  # differences are not taken for larger: a server that is overrun has any latency


@dataclass(frozen=True, slots=True)
class Margin:
    """How log(value / bound) on unseen traffic differs from that of the search: mean and spread."""

    shift: float
    spread: float

    @property
    def needed(self) -> float:
        """By how much log(value / bound) has to be below 0 in the search; may be negative."""
        return self.shift + _SPREADS * self.spread


def margins(
    slos: Sequence[Slo], trials: Sequence[TrialRow], repeats: Sequence[RepeatRow]
) -> dict[str, Margin]:
    """Return the margin of each SLO, by its text.

    What the default shows counts only while nothing else was repeated: it is far from its limits.
    """
    return {str(slo): _margin(slo, trials, repeats) for slo in slos}


def _margin(slo: Slo, trials: Sequence[TrialRow], repeats: Sequence[RepeatRow]) -> Margin:
    groups = _differences(slo, trials, repeats)
    baseline = baseline_of(trials)
    if baseline is not None and len(groups) > 1:
        groups.pop(baseline.number, None)
    count = sum(len(values) for values in groups.values())
    total = sum(sum(values) for values in groups.values())
    squares = sum(
        sum((v - sum(values) / len(values)) ** 2 for v in values) for values in groups.values()
    )
    prior = _PRIOR_SPREAD if _is_latency(slo) else 0.0
    freedom = count - len(groups)
    variance = (squares + _PRIOR_WEIGHT * prior**2) / (freedom + _PRIOR_WEIGHT)
    return Margin(total / (count + 1.0), math.sqrt(variance))


def _differences(
    slo: Slo, trials: Sequence[TrialRow], repeats: Sequence[RepeatRow]
) -> dict[int, list[float]]:
    """Return violation on unseen traffic - violation in the search, of each window, by trial."""
    searched = {
        t.number: slo.violation(t.measurement.metrics[slo.metric])
        for t in measured(trials)
        if t.measurement is not None and slo.metric in t.measurement.metrics
    }
    groups: dict[int, list[float]] = {}
    for row in repeats:
        if row.traffic is None or row.trial not in searched or row.measurement is None:
            continue
        value = row.measurement.metrics.get(slo.metric)
        difference = math.nan if value is None else slo.violation(value) - searched[row.trial]
        if math.isfinite(difference):
            groups.setdefault(row.trial, []).append(max(-_FAR, min(_FAR, difference)))
    return groups


def _is_latency(slo: Slo) -> bool:
    return slo.metric.partition("_")[2] in LATENCIES


def energy_shift(trials: Sequence[TrialRow], ratios: Mapping[int, float]) -> float:
    """Return by how much log energy against the default is higher than in the search, on average.

    `ratios` are the configurations' energy / the default's on unseen traffic. What looks best in
    the search is a little worse elsewhere; what was not repeated yet has that still to come.
    """
    baseline = baseline_of(trials)
    default_j = None if baseline is None else _energy_j(baseline)
    if default_j is None:
        return 0.0
    shifts = [
        math.log(ratios[t.number]) - math.log(ours_j / default_j)
        for t in measured(trials)
        if t.number in ratios and not t.baseline and (ours_j := _energy_j(t)) is not None
    ]
    return sum(shifts) / (len(shifts) + 1.0)


def _energy_j(trial: TrialRow) -> float | None:
    value = energy_j(trial)
    return value if value is not None and value > 0.0 else None
