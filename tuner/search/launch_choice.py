"""Evaluation costs: whether to stay with the warm server, or to launch another.

The marginal value theorem (Charnov 1976): leave when the next evaluation here gains less per second
than a whole stay elsewhere would, launch included.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.search.observation import Observation
from tuner.search.space import Floats, Levels, Space

LONGEST_STAY = 4  # evaluations that are looked ahead
_LAUNCHES = 3
_ROWS_PER_LAUNCH = 20

Gain = Callable[[Levels, Sequence[Levels]], Floats]


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that a launch, and an evaluation on a warm server, take."""

    launch_s: float
    evaluation_s: float


def estimated_costs(observations: Sequence[Observation]) -> Costs:
    """Return the medians so far; in relative units while no duration is known.

    An evaluation takes what it took where the point worked, if one did. While only one of the two
    is known, the other is taken to be as long.
    """
    lasted = [
        (o.works, o.wall_s - (o.launch_s or 0.0)) for o in observations if o.wall_s is not None
    ]
    evaluations = [s for works, s in lasted if works] or [s for _, s in lasted if s > 0.0]
    launches = [o.launch_s for o in observations if o.launch_s is not None]
    either = evaluations or launches or [1.0]
    return Costs(statistics.median(launches or either), statistics.median(evaluations or either))


def choose_row(
    space: Space, pool: Levels, log_gains: Floats, gain: Gain, warm: Levels | None, costs: Costs
) -> Levels:
    """Return the row of levels to evaluate next, shape (D,).

    Args:
        space: what the rows are of, with D knobs.
        pool: rows of levels, shape (N, D).
        log_gains: of the pool, shape (N,).
        gain: `gain(rows, after)` returns the log gains of some rows once others are evaluated.
        warm: levels that the warm server was launched with, shape (D,); None without one.
        costs: what launches and evaluations take.
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
    order = np.argsort(-log_gains)[:_ROWS_PER_LAUNCH]
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
