"""When searching on is no use: the model expects nothing more, or the front no longer grows."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.pareto import pareto_front
from tuner.search.search import IDLE_GAIN

Point = tuple[float, ...]

LEAST_EVALUATIONS = 40
_LEAST_SHARE = 1 / 3
_GROWTH = 0.01
IDLE_PROPOSALS = 15
_MARGIN = 0.1  # in log space: the worst value seen is 10 % better than the reference


def why_stop(points: Sequence[Point | None], gains: Sequence[float | None]) -> str | None:
    """Return why searching on is no use, or None.

    `gains` are what the proposals promised, as shares. While they are known they decide: 15 in a
    row below `IDLE_GAIN`. Without them a front that does not grow has to do.
    """
    recent = gains[-IDLE_PROPOSALS:]
    known = [gain for gain in recent if gain is not None]
    if len(known) == IDLE_PROPOSALS:
        if len(points) < LEAST_EVALUATIONS or max(known) >= IDLE_GAIN:
            return None
        return (
            f"each of the last {IDLE_PROPOSALS} configurations was expected to add less than "
            f"{IDLE_GAIN:.2%}"
        )
    last = flat_for(points)
    return None if last is None else f"its front has not grown in the last {last} evaluations"


def flat_for(points: Sequence[Point | None]) -> int | None:
    """Return for how many evaluations the hypervolume has grown by no more than 1 %, or None.

    `points` are the costs (logs) in the order of evaluation, None where an SLO was missed. Looked
    at are the last third of the evaluations, and at least 40 of them. The reference point is the
    worst of what met the SLOs.
    """
    last = max(LEAST_EVALUATIONS, round(len(points) * _LEAST_SHARE))
    known = [p for p in points if p is not None]
    if len(points) <= last or not known:
        return None
    reference = tuple(max(values) + _MARGIN for values in zip(*known, strict=True))
    before = hypervolume([p for p in points[:-last] if p is not None], reference)
    now = hypervolume(known, reference)
    return last if before > 0.0 and now - before <= _GROWTH * now else None


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Return the volume that the points dominate up to the reference; all is to be minimised."""
    inside = [p for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    front = [inside[i] for i in pareto_front(inside)]
    if not front:
        return 0.0
    if len(reference) == 1:
        return reference[0] - front[0][0]
    # slices along the first objective: each is as wide as to the next point
    edges = [*(p[0] for p in front[1:]), reference[0]]
    return sum(
        (edge - front[i][0]) * hypervolume([p[1:] for p in front[: i + 1]], reference[1:])
        for i, edge in enumerate(edges)
        if edge > front[i][0]
    )
