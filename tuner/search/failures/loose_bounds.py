"""Loose bounds: a process where some values are known only to be at least so much, maybe far more.

That a point keeps up with the load does not say how much more it could serve. Put at its bound, it
would say that it serves no more, and many such points would make a plateau of which the process is
sure. That a value y = f(x) + noise is at least b has the probability Phi((f(x) - b) / sd of the
noise). Expectation propagation replaces each of these factors by a normal one of a mean and a
variance, its site: that with which the posterior at x has the moments that the factor itself would
give it there (Minka 2001; Rasmussen and Williams 2006, section 3.6). The site of a bound that is
far exceeded is so wide that it says nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.special import log_ndtr

from tuner.search.gp import Data, GaussianProcess
from tuner.search.space import Flags, Floats

_ROUNDS = 2  # of hyperparameters and sites in turn
_SWEEPS = 4
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_WIDEST = 1e4  # variance of a site, in units of the data's variance


def fit_loosely_bounded(data: Data, bounded: Flags) -> GaussianProcess:
    """Fit to values and, marked in `bounded` (N,), lower bounds.

    Hyperparameters come from the values first, then from values and sites. Without any value the
    bounds are taken for values. Raises `ValueError` for data without rows.
    """
    known = ~bounded
    values = Data(data.x[known], data.y[known], data.extra_variances[known], data.unordered)
    if not len(values.y) or not bounded.any():
        return GaussianProcess.fit(data)
    model = GaussianProcess.fit(values)
    for _ in range(_ROUNDS - 1):
        model = GaussianProcess.fit(_with_sites(model, values, data, bounded))
    with_sites = _with_sites(model, values, data, bounded)
    return GaussianProcess(with_sites, model.parameters, model.scale)


def _with_sites(model: GaussianProcess, values: Data, data: Data, bounded: Flags) -> Data:
    """Return `data` with the sites that its bounds have beside `values`.

    Of `model` the hyperparameters and the scale count.
    """
    alone = GaussianProcess(values, model.parameters, model.scale)
    y, extra = data.y.copy(), data.extra_variances.copy()
    y[bounded], variances = _sites(alone, data.x[bounded], data.y[bounded])
    extra[bounded] = np.maximum(variances - model.noise_sd**2, 0.0)  # which every row has too
    return replace(data, y=y, extra_variances=extra)


def _sites(process: GaussianProcess, x: Floats, bounds: Floats) -> tuple[Floats, Floats]:
    """Return means and variances of the sites of `bounds` (B,) at rows of `x` (B, D), both (B,).

    One site after the other, and each of them a few times: neighbours say nearly the same, and all
    at once they would overshoot.
    """
    noise = process.noise_sd**2
    mean, covariance = process.joint(x)
    least = 1.0 / (_WIDEST * process.scale[1] ** 2)
    precisions, shifts = np.zeros(len(x)), np.zeros(len(x))
    for i in np.tile(np.arange(len(x)), _SWEEPS):
        variance = max(covariance[i, i], 1e-12)
        others_variance = 1.0 / max(1.0 / variance - precisions[i], 1e-6 / variance)
        others_mean = others_variance * (mean[i] / variance - shifts[i])
        spread = math.sqrt(noise + others_variance)
        z = (others_mean - bounds[i]) / spread
        slope = math.exp(-0.5 * z**2 - _LOG_ROOT_2PI - log_ndtr(z)) / spread
        curvature = slope * (slope + z / spread)
        site = 1.0 / max(1.0 / curvature - others_variance, noise) if curvature > 0.0 else 0.0
        precision = max(site, least)
        shift = precision * (others_mean + slope / curvature if site > least else others_mean)
        more = precision - precisions[i]
        column = covariance[:, i] / (1.0 + more * variance)
        mean = mean + column * (shift - shifts[i] - more * mean[i])
        covariance = covariance - more * np.outer(column, covariance[:, i])
        precisions[i], shifts[i] = precision, shift
    return shifts / precisions, 1.0 / precisions
