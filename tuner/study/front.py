"""The Pareto front of points that are all to be minimised."""

from __future__ import annotations

from collections.abc import Sequence


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
