"""The Pareto front of points that are all to be minimised, and how to go over it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Say whether `a` is nowhere worse than `b` and somewhere better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the non-dominated points, best first objective first.

    Of equal points the first is kept.
    """
    order = sorted(range(len(points)), key=lambda i: (tuple(points[i]), i))
    front: list[int] = []
    for i in order:  # whatever dominates a point sorts before it
        if not any(
            dominates(points[j], points[i]) or tuple(points[j]) == tuple(points[i]) for j in front
        ):
            front.append(i)
    return front


def spread_order(front: Sequence[Sequence[float]], taken: Collection[int]) -> list[int]:
    """Return the indices of a front that are not taken, so that any few cover the trade-off.

    The least of the first objective, the knee (the least sum, with the extent of each objective as
    its unit), the least of each other objective; then whatever lies farthest from all before.
    """
    if not front:
        return []
    units = _in_units_of_extent(front)
    dimensions = range(len(units[0]))
    ends = [min(range(len(units)), key=lambda i: units[i][k]) for k in dimensions]
    knee = min(range(len(units)), key=lambda i: sum(units[i]))
    order = [i for i in dict.fromkeys([ends[0], knee, *ends[1:]]) if i not in taken]
    left = [i for i in range(len(units)) if i not in taken and i not in order]
    reached = [units[i] for i in [*taken, *order]]
    while left:
        farthest = max(left, key=lambda i: min(math.dist(units[i], other) for other in reached))
        order.append(farthest)
        reached.append(units[farthest])
        left.remove(farthest)
    return order


def _in_units_of_extent(points: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    columns = list(zip(*points, strict=True))
    lows = [min(column) for column in columns]
    extents = [max(column) - low or 1.0 for column, low in zip(columns, lows, strict=True)]
    return [
        tuple((x - low) / extent for x, low, extent in zip(point, lows, extents, strict=True))
        for point in points
    ]
