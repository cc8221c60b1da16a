"""Feasibility: a Gaussian process behind a probit, learned from which points crashed."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

from tuner.search.gp import Data, GaussianProcess
from tuner.search.space import Flags, Floats

_LABEL_VARIANCE = 0.05  # of the latent value that a label stands for


class Feasibility:
    """The probability that a point works; 1 everywhere while nothing has failed."""

    def __init__(self, x: Floats, works: Flags, unordered: Flags) -> None:
        """Learn from `works` (N,) at rows of `x` (N, D); `unordered` (D,) as in `Space`."""
        self._latent: GaussianProcess | None = None
        if not works.all():
            labels = np.where(works, 1.0, -1.0)
            noise = np.full(len(labels), _LABEL_VARIANCE)
            self._latent = GaussianProcess.fit(Data(x, labels, noise, unordered))

    def log_probability(self, x: Floats) -> Floats:
        """Return the log probability that rows of `x` (N, D) work, shape (N,)."""
        if self._latent is None:
            return np.zeros(len(x))
        mean, sd = self._latent.predict(x)
        result: Floats = log_ndtr(mean / np.sqrt(sd**2 + _LABEL_VARIANCE))
        return result
