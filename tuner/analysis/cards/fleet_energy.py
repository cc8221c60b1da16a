"""Fleet energy: what the recommended configuration uses per token on all cards of a study.

It is estimated: the default was measured on each card, and the ratio of both on the same card and
traffic, where the recommendation was confirmed. No window measured it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.analysis.cards.figures import CardFigures
from tuner.analysis.outcomes import energy_j
from tuner.analysis.recommendation.recommend import Recommendation
from tuner.measurement.statistics.student_t import student_t_quantile
from tuner.store import RepeatKind, RepeatRow


@dataclass(frozen=True, slots=True)
class FleetEnergy:
    """Energy per unit of output, J, of the recommended configuration.

    `low` and `high` are the 95 % interval of the mean of cards of this kind, None with fewer than
    two cards. `cards` are the estimates for each card, `outliers` the cards that are left out.
    `confirmed_on` are the cards on which it was confirmed.
    """

    energy_j: float
    low: float | None
    high: float | None
    cards: dict[str, float]
    outliers: tuple[CardFigures, ...]
    confirmed_on: tuple[str, ...]


def fleet_energy(found: Recommendation) -> FleetEnergy | None:
    """Return it; None for a study on one card, or without a ratio to the default."""
    sound = [one for one in found.cards if one.outlier is None]
    ratio = _ratio(found)
    if not sound or ratio is None:
        return None
    cards = {one.card: ratio * one.energy_j for one in sound}
    logs = [math.log(value) for value in cards.values()]
    mean = statistics.fmean(logs)
    low = high = None
    if len(logs) >= 2:
        standard_error = statistics.stdev(logs) / math.sqrt(len(logs))
        half = student_t_quantile(0.975, len(logs) - 1) * standard_error
        low, high = math.exp(mean - half), math.exp(mean + half)
    return FleetEnergy(
        math.exp(mean),
        low,
        high,
        cards,
        tuple(one for one in found.cards if one.outlier is not None),
        _confirmed_on(found.best.number, found.probes),
    )


def _ratio(found: Recommendation) -> float | None:
    """Return the energy relative to the default's on the same card."""
    if found.is_default:
        return 1.0
    known = found.confirmed.confirmations.get(found.best.number)
    if known is not None and known.energy is not None:
        return 1.0 + known.energy.difference
    ours, card = energy_j(found.best), found.best.owner.card
    here = {one.card: one.energy_j for one in found.cards}
    return None if ours is None or card not in here else ours / here[card]


def _confirmed_on(trial: int, rows: Sequence[RepeatRow]) -> tuple[str, ...]:
    cards = {
        row.owner.card
        for row in rows
        if row.trial == trial and row.kind is RepeatKind.CONFIRMATION and row.measurement
    }
    return tuple(sorted(card for card in cards if card is not None))
