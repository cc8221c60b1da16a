"""Start design: scrambled Sobol points, a few on each of a few launches."""

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
    points: list[Point] = []
    for row in rows:
        if len(points) == count:
            break
        if len(points) % _PER_LAUNCH == 0 and points:
            launch = None  # the next launch
        moved = row.copy()
        if launch is not None:
            moved[space.restarting] = launch[space.restarting]
        point = space.point(moved)
        if not is_possible(point) or point in points:
            continue
        points.append(point)
        launch = moved
    return points
