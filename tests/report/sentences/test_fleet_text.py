"""The fleet in words: on which cards a configuration was confirmed."""

from __future__ import annotations

import pytest

from tuner.analysis.cards.fleet_energy import FleetEnergy
from tuner.report.sentences.fleet_text import fleet_text


@pytest.mark.parametrize(
    ("confirmed_on", "said"),
    [
        (("GPU-a", "GPU-b"), ["confirmed on 2 of them"]),
        (("GPU-c",), ["confirmed on GPU-c, not among them"]),
        (("GPU-b", "GPU-c"), ["confirmed on 1 of them", "confirmed on GPU-c, not among them"]),
        ((), []),
    ],
)
def test_a_card_that_only_confirmed_is_not_counted_among_the_others(
    confirmed_on: tuple[str, ...], said: list[str]
) -> None:
    """A third H200, which ended a study of two, was said to be one of the two."""
    fleet = FleetEnergy(0.082, 0.079, 0.085, {"GPU-a": 0.083, "GPU-b": 0.081}, (), confirmed_on)
    first, *others = fleet_text(fleet, "output token").splitlines()
    assert "on 2 cards: 0.082 J/output token (95 %: 0.079 to 0.085)" in first
    assert others == said
