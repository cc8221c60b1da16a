"""Outlook: what trials would show on traffic that was not measured, by all repeats together.

The search compares configurations on one stretch of traffic. On others a latency is longer or
shorter: by a shift, which the search's stretch is to blame for, by what is a configuration's own,
and by how heavy the stretch is. What the repeats say of these is in
`tuner.measurement.statistics.stretch_effects`; here it becomes the chance that a trial misses an
SLO, and the margin by which the search has to be within it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analysis.outcomes import baseline_of, energy_j, measured
from tuner.measurement.statistics.stretch_effects import Forecast, StretchEffects, Window
from tuner.measurement.statistics.unseen_traffic import LEAST_WINDOWS, MOST_MISSES
from tuner.metrics import LATENCIES, STRETCH_HEAVINESS
from tuner.slo import Slo
from tuner.store import RepeatRow, TrialRow

# A window holds 95 times in 100 at 1.64 spreads, if the mean is known; it is not quite.
_SPREADS = 1.8
# What is taken for the spread of a latency, and of another metric, before anything was repeated.
_PRIOR_SPREAD, _PRIOR_SPREAD_OF_OTHERS = 0.1, 0.01
_FAR = 1.0  # differences are not taken for larger: a server that is overrun has any latency
_FAR_WITHIN = -3.0  # a value of 0 has no logarithm
_HARDLY = 0.01  # so small a share of the misses is left out of account
_SURELY_WIDER = 0.02  # so unlikely are the own windows with the spread of all


@dataclass(frozen=True, slots=True)
class Margin:
    """How log(value / bound) on unseen traffic differs from that of the search: mean and spread."""

    shift: float
    spread: float

    @property
    def needed(self) -> float:
        """By how much log(value / bound) has to be below 0 in the search; may be negative."""
        return self.shift + _SPREADS * self.spread


class Outlook:
    """What is expected of trials on unseen traffic under some SLOs.

    The default is far from its limits, and behaves otherwise: it is told of by its own windows, and
    tells of others only while nothing else was repeated.
    """

    def __init__(
        self, slos: Sequence[Slo], trials: Sequence[TrialRow], repeats: Sequence[RepeatRow]
    ) -> None:
        baseline = baseline_of(trials)
        self._default = None if baseline is None else baseline.number
        self._slos = tuple(slos)
        self._searched = {str(slo): _searched(slo, trials) for slo in slos}
        self._windows = {str(slo): _windows(slo, self._searched[str(slo)], repeats) for slo in slos}
        self._effects: dict[tuple[str, bool], StretchEffects] = {}
        self._known: dict[int, list[_OfSlo | None]] = {}

    def margin(self, slo: Slo) -> Margin:
        """Return the margin of an SLO for a configuration that was not repeated."""
        forecast = self._effects_on(slo, is_default=False).forecast()
        return Margin(forecast.mean, forecast.spread)

    @property
    def stretches(self) -> int:
        """On how many unseen stretches anything was measured."""
        return len({w.stretch for windows in self._windows.values() for w in windows})

    def miss_chance(self, number: int) -> float:
        """Return how likely a further window of a trial misses an SLO, at most; 1 if unknown."""
        chances = [
            1.0 if one is None else one.forecast.chance_above(-one.searched)
            for one in self._outlooks(number)
        ]
        return min(1.0, sum(chances))

    def chance_to_hold(self, number: int) -> float:
        """Return how likely it is that 95 of 100 windows of a trial meet each SLO.

        More repeats can show that, or cannot.
        """
        chances = [
            0.0 if one is None else one.forecast.chance_that_95_of_100_are_below(-one.searched)
            for one in self._outlooks(number)
        ]
        return min(chances, default=1.0)

    def chance_to_show(self, number: int, windows: int) -> float:
        """Return how likely so many more windows of a trial show that it meets the SLOs.

        Of the misses that are allowed, each SLO has the share that it has of those expected now.
        """
        chances = []
        missed = self.miss_chance(number)
        for one in self._outlooks(number):
            if one is None:
                return 0.0
            share = one.forecast.chance_above(-one.searched) / missed if missed > 0.0 else 0.0
            if share > _HARDLY:
                level = 1.0 - MOST_MISSES * share
                chances.append(one.forecast.chance_to_show(-one.searched, windows, level))
        return min(chances, default=1.0)

    def expected(self, number: int) -> dict[str, float]:
        """Return log(value / bound) that is expected of a trial on unseen traffic, by metric."""
        return {
            slo.metric: one.searched + one.forecast.mean
            for slo, one in zip(self._slos, self._outlooks(number), strict=True)
            if one is not None
        }

    def _outlooks(self, number: int) -> list[_OfSlo | None]:
        if number not in self._known:
            self._known[number] = [self._outlook(slo, number) for slo in self._slos]
        return self._known[number]

    def _outlook(self, slo: Slo, number: int) -> _OfSlo | None:
        """Return what is expected of a trial; one with surely wider windows goes by its own."""
        searched = self._searched[str(slo)].get(number)
        if searched is None:
            return None
        shared = self._effects_on(slo, is_default=number == self._default).forecast(number)
        own = [w.difference for w in self._windows[str(slo)] if w.configuration == number]
        return _OfSlo(searched, _alone(own) if _is_wider(own, shared) else shared)

    def _effects_on(self, slo: Slo, *, is_default: bool) -> StretchEffects:
        key = (str(slo), is_default)
        if key not in self._effects:
            windows = self._windows[str(slo)]
            kept = [w for w in windows if (w.configuration == self._default) == is_default]
            prior = _PRIOR_SPREAD if _is_latency(slo) else _PRIOR_SPREAD_OF_OTHERS
            self._effects[key] = StretchEffects(kept if is_default else kept or windows, prior)
        return self._effects[key]


@dataclass(frozen=True, slots=True)
class _OfSlo:
    """log(value / bound) of a trial in the search, and by how much it will differ elsewhere."""

    searched: float
    forecast: Forecast


def margins(
    slos: Sequence[Slo], trials: Sequence[TrialRow], repeats: Sequence[RepeatRow]
) -> dict[str, Margin]:
    """Return the margin of each SLO, by its text."""
    outlook = Outlook(slos, trials, repeats)
    return {str(slo): outlook.margin(slo) for slo in slos}


def _searched(slo: Slo, trials: Sequence[TrialRow]) -> dict[int, float]:
    """Return log(value / bound) in the search, by trial."""
    return {
        t.number: max(slo.violation(t.measurement.metrics[slo.metric]), _FAR_WITHIN)
        for t in measured(trials)
        if t.measurement is not None and slo.metric in t.measurement.metrics
    }


def _windows(slo: Slo, searched: Mapping[int, float], repeats: Sequence[RepeatRow]) -> list[Window]:
    """Return the windows on unseen stretches, as differences from the search's."""
    found = []
    for row in repeats:
        if row.traffic is None or row.trial not in searched or row.measurement is None:
            continue
        value = row.measurement.metrics.get(slo.metric)
        if value is not None:
            difference = max(slo.violation(value), _FAR_WITHIN) - searched[row.trial]
            heaviness = row.measurement.metrics.get(STRETCH_HEAVINESS)
            if not math.isnan(difference):
                near = max(-_FAR, min(_FAR, difference))
                found.append(Window(row.trial, row.traffic, near, heaviness))
    return found


def _is_latency(slo: Slo) -> bool:
    return slo.metric.partition("_")[2] in LATENCIES


def _is_wider(own: Sequence[float], shared: Forecast) -> bool:
    """Say whether the own windows surely spread more than those of all (an F test)."""
    if len(own) < LEAST_WINDOWS:
        return False
    from scipy.special import fdtrc  # a third of a second, which a report may not need

    ratio = statistics.variance(own) / shared.spread**2
    return ratio > 1.0 and float(fdtrc(len(own) - 1, shared.freedom, ratio)) < _SURELY_WIDER


def _alone(own: Sequence[float]) -> Forecast:
    """Return what one configuration's windows say of a further one: Student's t."""
    spread, count = statistics.stdev(own), len(own)
    return Forecast(
        weights=np.ones(1),
        means=np.array([statistics.fmean(own)]),
        scales=np.array([spread * math.sqrt(1.0 + 1.0 / count)]),
        mean_scales=np.array([spread / math.sqrt(count)]),
        freedoms=np.array([count - 1.0]),
        rests=np.array([spread]),
    )


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
