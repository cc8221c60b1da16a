"""Card figures: the default on each card of a study beside the fleet, and which is an outlier.

Every card measures the default once on the search's own traffic: as a trial, or as a probe. In logs
a card's effect is its distance from the mean of all cards that are no outliers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.analysis.outcomes import energy_in
from tuner.metrics import kind_of
from tuner.records import Measurement
from tuner.store import ProbeKind, RepeatRow, TrialRow

_OF_POWER = ("energy_per_", "mean_power_w")  # how their names begin
_SPEED = "mean_tpot_ms"
# Sound cards of one kind are within this of their median, in logs: 10 % in power was measured
# between two H200s, and clocks under the same limits differ by less.
_MOST_ENERGY, _MOST_SPEED = 0.13, 0.06
_LEAST_CARDS = 3  # of two nobody knows which is the outlier


@dataclass(frozen=True, slots=True)
class CardFigures:
    """The default on one card.

    `energy_j` is per unit of output, `energy_factor` and `time_factor` are relative to the fleet's
    mean; `outlier` says what is wrong with the card.
    """

    card: str
    energy_j: float
    energy_factor: float
    time_factor: float | None
    outlier: str | None


def card_figures(trials: Sequence[TrialRow], probes: Sequence[RepeatRow]) -> list[CardFigures]:
    """Return the figures of each card on which the default was measured, by name."""
    measured: dict[str, list[Mapping[str, float]]] = {}
    for row in (
        *(t for t in trials if t.baseline),
        *(p for p in probes if p.kind is ProbeKind.CARD),
    ):
        if row.owner.card is not None and row.measurement is not None:
            measured.setdefault(row.owner.card, []).append(row.measurement.metrics)
    energies = _means(measured, energy_in)
    times = _means(measured, lambda metrics: metrics.get(_SPEED))
    outliers = _outliers(energies, times)
    sound = [card for card in energies if card not in outliers]
    fleet_j = _geometric_mean([energies[card] for card in sound])
    fleet_ms = _geometric_mean([times[card] for card in sound if card in times])
    return [
        CardFigures(
            card,
            energies[card],
            energies[card] / fleet_j,
            times[card] / fleet_ms if card in times else None,
            outliers.get(card),
        )
        for card in sorted(energies)
    ]


def on_mean_card(trials: Sequence[TrialRow], figures: Sequence[CardFigures]) -> list[TrialRow]:
    """Return the trials with the power that the mean card would have taken.

    For the choice of what is measured again, which compares trials of different cards; what is
    shown are the figures of the windows themselves.
    """
    factors = {one.card: one.energy_factor for one in figures}
    return [_scaled(trial, factors.get(trial.owner.card or "", 1.0)) for trial in trials]


def without_noise(trials: Sequence[TrialRow], costs: Mapping[int, float]) -> list[TrialRow]:
    """Return the trials with the energy that a model of all of them expects, for the same choice.

    `costs` are its logarithms, by number. Of configurations that are nearly as good, the one whose
    only window was lucky, or whose card's default was, would lead.
    """
    return [_with_energy(t, costs[t.number]) if t.number in costs else t for t in trials]


def _with_energy(trial: TrialRow, log_j: float) -> TrialRow:
    if trial.measurement is None:
        return trial
    name = kind_of(trial.measurement.metrics).energy
    metrics = {**trial.measurement.metrics, name: math.exp(log_j)}
    return replace(trial, measurement=replace(trial.measurement, metrics=metrics))


def _scaled(trial: TrialRow, factor: float) -> TrialRow:
    if trial.measurement is None or factor == 1.0:
        return trial
    metrics = {
        name: value / factor if name.startswith(_OF_POWER) else value
        for name, value in trial.measurement.metrics.items()
    }
    measurement: Measurement = replace(trial.measurement, metrics=metrics)
    return replace(trial, measurement=measurement)


def _means(
    measured: Mapping[str, Sequence[Mapping[str, float]]],
    value_in: Callable[[Mapping[str, float]], float | None],
) -> dict[str, float]:
    found = {
        card: [value for metrics in windows if (value := value_in(metrics))]
        for card, windows in measured.items()
    }
    return {card: _geometric_mean(values) for card, values in found.items() if values}


def _outliers(energies: Mapping[str, float], times: Mapping[str, float]) -> dict[str, str]:
    found: dict[str, str] = {}
    for values, most, what in (
        (energies, _MOST_ENERGY, "energy"),
        (times, _MOST_SPEED, "time per token"),
    ):
        if len(values) < _LEAST_CARDS:
            continue
        median = statistics.median(values.values())
        for card, value in values.items():
            if abs(math.log(value / median)) > most:
                percent = 100.0 * (value / median - 1.0)
                found.setdefault(card, f"{percent:+.0f} % {what} beside the other cards")
    return found


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values))) if values else 1.0
