"""The fleet in words: energy on all cards of a study, estimated from what each measured."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tuner.analysis.cards.fleet_energy import FleetEnergy
from tuner.report.labels import number


def fleet_text(fleet: FleetEnergy, unit: str) -> str:
    """Return the fleet's value with its interval, each card's, and what is left out.

    `unit` is what energy is counted per, such as a token.
    """
    count = len(fleet.cards)
    interval = (
        "" if fleet.low is None else f" (95 %: {number(fleet.low)} to {number(fleet.high or 0.0)})"
    )
    each = ", ".join(f"{card} {number(energy_j)}" for card, energy_j in fleet.cards.items())
    among = [card for card in fleet.confirmed_on if card in fleet.cards]
    others = [card for card in fleet.confirmed_on if card not in fleet.cards]
    lines = [
        f"on {count} card{'s'[: count - 1]}: {number(fleet.energy_j)} J/{unit}{interval} "
        f"[estimated from the default on each]; {each}",
        f"confirmed on {len(among)} of them" if among else "",
        f"confirmed on {', '.join(others)}, not among them" if others else "",
        *(f"left out: card {one.card}, {one.outlier}" for one in fleet.outliers),
    ]
    return "\n".join(line for line in lines if line)


def fleet_json(fleet: FleetEnergy | None) -> dict[str, Any] | None:
    """Return the fleet's energy for programs, J per output token; None on one card."""
    return None if fleet is None else {"estimated": True, **asdict(fleet)}
