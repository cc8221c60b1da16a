"""Pareto front, hypervolume and knee of points whose coordinates are all to be minimised."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Say whether `a` dominates `b`: not worse in any objective and better in one."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


def pareto_front(points: ArrayLike) -> list[int]:
    """Return the indices of the non-dominated points, best first objective first.

    `points` has shape (points, objectives). Of equal points the first is kept.
    """
    rows = np.asarray(points, dtype=np.float64)
    if not len(rows):
        return []
    order = np.lexsort(rows.T[::-1])  # a dominating point sorts before the dominated one
    ordered = rows[order]
    if rows.shape[1] <= 2:
        last = ordered[:, -1]
        is_better = last[1:] < np.minimum.accumulate(last)[:-1]
        return [int(i) for i in order[np.concatenate([[True], is_better])]]
    front: list[int] = []
    for i, row in zip(order, ordered, strict=True):
        if not np.any(np.all(rows[front] <= row, axis=1)):
            front.append(int(i))
    return front


def reference_point(
    points: ArrayLike, *, extent_share: float = 0.0, least_margin: float = 0.0
) -> NDArray[np.float64]:
    """Return the point up to which hypervolume counts: the worst of each objective plus a margin.

    The margin lets the worst points dominate something too. It is a share of each objective's
    extent, and at least `least_margin`. `points` has shape (points, objectives), the result
    (objectives,). Raises `ValueError` without points.
    """
    rows = np.asarray(points, dtype=np.float64)
    best, worst = rows.min(axis=0), rows.max(axis=0)
    reference: NDArray[np.float64] = worst + np.maximum(extent_share * (worst - best), least_margin)
    return reference


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume that points dominate up to a reference point, exactly.

    It slices along the first objective (While, Hingston, Barone and Huband 2006); a slice reaches
    to the next point of the front. `points` has shape (points, objectives), `reference`
    (objectives,). A point that does not beat the reference in every objective adds nothing.
    """
    rows, worst = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if not len(rows):
        return 0.0
    inside = rows[np.all(rows < worst, axis=1)]
    if not len(inside):
        return 0.0
    front = inside[pareto_front(inside)]
    if front.shape[1] == 1:
        return float(worst[0] - front[0, 0])
    widths = np.append(front[1:, 0], worst[0]) - front[:, 0]
    if front.shape[1] == 2:
        return float(np.sum(widths * (worst[1] - front[:, 1])))
    return sum(
        float(width) * hypervolume(front[: i + 1, 1:], worst[1:])
        for i, width in enumerate(widths)
        if width > 0.0
    )


def knee(front: Sequence[Sequence[float]]) -> int:
    """Return the index of the knee: the least sum, each objective in units of its extent.

    With two objectives it is the member farthest below the line between the two ends (Das 1999).
    The first of equals wins. Raises `ValueError` for an empty front.
    """
    units = _in_units_of_extent(front)
    return min(range(len(units)), key=lambda i: sum(units[i]))


def spread_order(front: Sequence[Sequence[float]], taken: Collection[int]) -> list[int]:
    """Return the indices of a front that are not taken, ordered so that the first few cover it.

    The order is: the least first objective, the knee, the least of each other objective, then
    always the point farthest from all before it.
    """
    if not front:
        return []
    units = _in_units_of_extent(front)
    dimensions = range(len(units[0]))
    ends = [min(range(len(units)), key=lambda i: units[i][k]) for k in dimensions]
    order = [i for i in dict.fromkeys([ends[0], knee(front), *ends[1:]]) if i not in taken]
    left = [i for i in range(len(units)) if i not in taken and i not in order]
    reached = [units[i] for i in [*taken, *order]]
    while left:
        farthest = max(left, key=lambda i: min(math.dist(units[i], other) for other in reached))
        order.append(farthest)
        reached.append(units[farthest])
        left.remove(farthest)
    return order


def _in_units_of_extent(points: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """Return each point with every coordinate scaled from the least (0) to the greatest (1)."""
    columns = list(zip(*points, strict=True))
    lows = [min(column) for column in columns]
    extents = [max(column) - low or 1.0 for column, low in zip(columns, lows, strict=True)]
    return [
        tuple((x - low) / extent for x, low, extent in zip(point, lows, extents, strict=True))
        for point in points
    ]
