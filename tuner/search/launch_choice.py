"""Whether to stay with the warm server: what the next seconds bring here, and elsewhere.

The marginal value theorem (Charnov 1976): leave when the next evaluation here brings less per
second than a whole stay elsewhere would, launch included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tuner.search.costs import Costs
from tuner.search.space import Floats, Levels, Space

LONGEST_STAY = 4  # evaluations that are looked ahead
_LAUNCHES = 3
_EACH = 20

Gain = Callable[[Levels, Sequence[Levels]], Floats]


def choose(
    space: Space, pool: Levels, log_gains: Floats, gain: Gain, warm: Levels | None, costs: Costs
) -> Levels:
    """Return the row to evaluate next.

    `log_gains` are the gains of the pool; `gain(rows, after)` those of some rows after others were
    evaluated.
    """
    if not space.restarting.any() or costs.launch_s <= 0.0:
        best: Levels = pool[int(np.argmax(log_gains))]
        return best
    launches = pool[:, space.restarting]
    is_warm = np.zeros(len(pool), dtype=np.bool_)
    if warm is not None:
        is_warm = np.all(launches == warm[space.restarting], axis=1)
    rates: list[tuple[float, Levels]] = []
    if is_warm.any():
        first = int(np.argmax(np.where(is_warm, log_gains, -np.inf)))
        rates.append((float(log_gains[first]) - math.log(costs.evaluation_s), pool[first]))
    rest = np.where(is_warm, -np.inf, log_gains)
    for _ in range(_LAUNCHES):
        first = int(np.argmax(rest))
        if rest[first] == -np.inf:
            break
        same = np.all(launches == launches[first], axis=1)
        rates.append((_rate_of_stay(pool[same], log_gains[same], gain, costs), pool[first]))
        rest[same] = -np.inf
    return max(rates, key=lambda rate: rate[0])[1]


def _rate_of_stay(rows: Levels, log_gains: Floats, gain: Gain, costs: Costs) -> float:
    """Return the log of the best gain per second over stays of one evaluation and more."""
    order = np.argsort(-log_gains)[:_EACH]
    rows, left = rows[order], log_gains[order]
    total, spent_s, best = -np.inf, costs.launch_s, -np.inf
    done: list[Levels] = []
    while len(done) < LONGEST_STAY and len(rows):
        first = int(np.argmax(left))
        total = float(np.logaddexp(total, left[first]))
        spent_s += costs.evaluation_s
        best = max(best, total - math.log(spent_s))
        done.append(rows[first])
        rows = np.delete(rows, first, axis=0)
        if len(rows) and len(done) < LONGEST_STAY:
            left = gain(rows, done)
    return best
