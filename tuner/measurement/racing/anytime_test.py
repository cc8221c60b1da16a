"""Anytime-valid test: whether a mean lies above a value, asked again after each observation.

A t test that is repeated until it succeeds always succeeds. The Bayes factor of Student's t with a
normal prior on the effect (Gönen et al. 2005) does not: under the null hypothesis it depends on the
data by scale-free quantities alone, and is a martingale of mean 1. So it ever reaches 1 / a with a
probability of at most a (Ville), however often it is looked at, for normal observations of unknown
variance.
"""

from __future__ import annotations

import math

import numpy as np

from tuner.records import FloatArray

LEAST_BATCHES = 4
_PRIOR_VARIANCE = 10.0  # of mean / standard deviation; differences of batches are clear or nothing
_LEAST_SD = 5e-4  # of log ratios; emulated engines without noise repeat themselves


def log_evidence(values: FloatArray, null: float) -> float:
    """Return the log of the evidence that the mean of `values` (N,) is greater than `null`.

    It exceeds log(1 / a) at any N with a probability of at most a if the mean is `null` or less.
    -inf for fewer than four values, or a mean that is not greater.
    """
    n = values.size
    if n < LEAST_BATCHES:
        return -math.inf
    mean = float(values.mean())
    if mean <= null:
        return -math.inf
    sd = max(float(np.std(values, ddof=1)), _LEAST_SD)
    t_squared, freedom = n * ((mean - null) / sd) ** 2, n - 1
    spread = 1.0 + n * _PRIOR_VARIANCE
    gain = math.log1p(t_squared / freedom) - math.log1p(t_squared / (freedom * spread))
    return 0.5 * (freedom + 1) * gain - 0.5 * math.log(spread)
