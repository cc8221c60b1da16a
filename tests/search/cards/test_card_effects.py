"""Cards are told apart from what their configurations do, and the fleet's values come back."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.search.cards.card_effects import ENERGY_SD, without_card_effects
from tuner.search.gp import Data

CARDS = 6


def night(seed: int, points: int = 48, noise: float = 0.01) -> tuple[Data, list[str], np.ndarray]:
    """Return a search's data, the card of each row, and the values of the mean card."""
    rng = np.random.default_rng(seed)
    x = rng.random((points, 3))
    x[:CARDS] = 0.5  # the default, on every card
    effects = rng.normal(0.0, 0.05, CARDS)
    effects -= effects.mean()
    cards = np.concatenate([np.arange(CARDS), rng.integers(0, CARDS, points - CARDS)])
    fleet = -0.5 * x[:, 0] + 0.3 * (x[:, 1] - 0.4) ** 2
    y = fleet + effects[cards] + noise * rng.standard_normal(points)
    data = Data(x, y, np.zeros(points), np.zeros(3, dtype=np.bool_))
    return data, [f"card {k}" for k in cards], fleet


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_what_is_left_is_the_noise_of_one_window(seed: int) -> None:
    data, cards, fleet = night(seed)
    error = without_card_effects(data, cards, ENERGY_SD).y - fleet
    before = data.y - fleet
    # cards are known to the fleet's mean, which no comparison needs
    assert np.std(error) < 0.016
    assert np.std(error) < 0.6 * np.std(before) or np.std(before) < 0.025


def test_one_card_changes_nothing() -> None:
    data, cards, _ = night(1)
    assert without_card_effects(data, ["card 0"] * len(cards), ENERGY_SD) is data
    assert without_card_effects(data, [None] * len(cards), ENERGY_SD) is data
