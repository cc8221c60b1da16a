"""What is evaluated before there is a model: a few launches, each with a few points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuner.search.space import Point, Space

_PER_LAUNCH = 4
_TRIES = 8


def start_points(
    space: Space,
    count: int,
    seed: int,
    is_possible: Callable[[Point], bool],
    default: Point | None,
) -> list[Point]:
    """Return up to `count` space-filling points that are possible.

    The first few share the default's launch, the next few another one, and so on: each launch
    serves several points.
    """
    from scipy.stats import qmc  # a third of a second, which a study that goes on does not need

    sobol = qmc.Sobol(len(space.knobs), scramble=True, seed=seed)
    rows = space.at(sobol.random_base2(int(np.ceil(np.log2(max(count * _TRIES, 2))))))
    launch = None if default is None else space.levels_of(default)
    found: list[Point] = []
    for row in rows:
        if len(found) == count:
            break
        if len(found) % _PER_LAUNCH == 0 and found:
            launch = None  # the next launch
        moved = row.copy()
        if launch is not None:
            moved[space.restarting] = launch[space.restarting]
        point = space.point(moved)
        if not is_possible(point) or point in found:
            continue
        found.append(point)
        launch = moved
    return found
