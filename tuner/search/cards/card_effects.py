"""Card effects: how much each card is above or below the fleet, the same for every configuration.

Observations in logs are y = f(x) + b[card] + noise, where b is a random effect with mean 0 and a
known standard deviation, and f the Gaussian process. Given K, the covariance of f with its noise,
the best linear unbiased prediction of b is (Z' K^-1 Z + I / sd^2)^-1 Z' K^-1 y, where Z says which
card each observation is from (Henderson 1975). It is solved in turn with the hyperparameters of K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tuner.search.gp import Data, GaussianProcess
from tuner.search.space import Floats

ENERGY_SD = 0.06  # of log energy between cards of one kind
SPEED_SD = 0.03  # of log latency
_ROUNDS = 2


def without_card_effects(data: Data, cards: Sequence[str | None], sd: float) -> Data:
    """Return the data as the mean card would have given them.

    `cards` (N,) says which card each row is from. With fewer than two the data stay as they are.
    """
    names = sorted({card for card in cards if card is not None})
    if len(names) < 2 or len(data.y) < 3:
        return data
    z = np.array([[card == name for name in names] for card in cards], dtype=np.float64)
    fleet = data
    for _ in range(_ROUNDS):
        fleet = replace(
            data, y=data.y - z @ card_effects(GaussianProcess.fit(fleet), data.y, z, sd)
        )
    return fleet


def card_effects(process: GaussianProcess, y: Floats, z: Floats, sd: float) -> Floats:
    """Return the effect of each of C cards, shape (C,).

    Args:
        process: of the same points, whose hyperparameters count.
        y: the values with the cards' effects in them, shape (N,).
        z: 1 where a row is from a card, else 0, shape (N, C).
        sd: the prior standard deviation of an effect, in the units of y.
    """
    centre, spread = process.scale
    precision = z.T @ process.solve(z) + np.eye(z.shape[1]) * (spread / sd) ** 2
    weighted = z.T @ process.solve((y - centre) / spread)
    return spread * np.asarray(np.linalg.solve(precision, weighted), dtype=np.float64)
