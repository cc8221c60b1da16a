"""Capacity: how much of the offered load a point serves, learned from those that fall behind."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

from tuner.search.failures.loose_bounds import fit_loosely_bounded
from tuner.search.gp import Data
from tuner.search.space import Flags, Floats


class Capacity:
    """The probability that a point keeps up with the load; 1 everywhere while all do.

    A Gaussian process of log(served / offered). It is known of points that fall behind; of those
    that keep up only that it is at least 0. Speed-ups multiply, so knobs' shares in it add up: two
    that do not suffice alone may do so together.
    """

    def __init__(self, x: Floats, overloads: Floats, unordered: Flags) -> None:
        """Learn from `overloads` (N,), log(offered / served) or 0, at rows of `x` (N, D)."""
        falls_behind = overloads > 0.0
        self._log_share = None
        if falls_behind.any():
            data = Data(x, -overloads, np.zeros(len(x)), unordered)
            self._log_share = fit_loosely_bounded(data, ~falls_behind)

    def log_probability(self, x: Floats) -> Floats:
        """Return the log probability that rows of `x` (N, D) keep up, shape (N,)."""
        if self._log_share is None:
            return np.zeros(len(x))
        mean, sd = self._log_share.predict(x)
        result: Floats = log_ndtr(mean / sd)
        return result
