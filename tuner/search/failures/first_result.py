"""The first result: where to look while too little works to model the objectives.

On a space of which most fails, random points would be launched for hours. But each failure says
where others are likely: an overload by how much is missing, an early end by how far the SLO is.
"""

from __future__ import annotations

import numpy as np

from tuner.search.acquisition import expected_lowering
from tuner.search.posterior import Models
from tuner.search.space import Floats, Levels

_SMALLEST = 1e-300


def log_promise(models: Models, rows: Levels, points: Floats) -> Floats:
    """Return the log of what each row of levels (N, D) promises, shape (N,).

    That is the probability that it works and, once a constraint is known, times how far the
    largest violation is expected to fall below the least at `points`, coordinates (K, D) of those
    that work.
    """
    x = models.space.coordinates(rows)
    posterior = models.constraint_posterior(x)
    if not models.violations or not len(points):
        return posterior.log_works
    least = float(models.constraint_posterior(points).violation_means.max(axis=1).min())
    lowering = expected_lowering(least, posterior.violation_means, posterior.violation_sds)
    result: Floats = posterior.log_works + np.log(lowering + _SMALLEST)
    return result
