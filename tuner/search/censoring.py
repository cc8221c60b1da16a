"""Censored values: a process where some values are known only to be at least so much."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

from tuner.search.gp import Data, GaussianProcess
from tuner.search.space import Flags, Floats

_ROUNDS = 2


def fit_censored(data: Data, censored: Flags) -> GaussianProcess:
    """Fit with each lower bound, marked in `censored` (N,), replaced by what is expected above it.

    Raises `ValueError` for data without rows.
    """
    model = GaussianProcess.fit(data)
    if not censored.any():
        return model
    bounds = data.y[censored]
    for _ in range(_ROUNDS if (~censored).sum() >= 2 else 0):
        mean, sd = model.predict(data.x[censored])
        y = data.y.copy()
        y[censored] = _mean_above(bounds, mean, sd)
        changed = Data(data.x, y, data.extra_variances, data.unordered)
        model = GaussianProcess(changed, model.parameters, model.scale)
    return model


def _mean_above(bound: Floats, mean: Floats, sd: Floats) -> Floats:
    """Return the mean of a normal variable that is known to lie above a bound."""
    z = (bound - mean) / sd
    hazard = np.exp(-0.5 * z**2 - 0.5 * np.log(2.0 * np.pi) - log_ndtr(-z))
    result: Floats = np.maximum(bound, mean + sd * hazard)
    return result
