"""Stopping rule: the acquisition function expects nothing more, or the front has stagnated."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.pareto import hypervolume, reference_point
from tuner.search.search import IDLE_GAIN, IDLE_GAIN_IN_DOUBT

Point = tuple[float, ...]

LEAST_EVALUATIONS = 40
_LEAST_SHARE = 1 / 3
_GROWTH = 0.01
IDLE_PROPOSALS = 15
_MARGIN = 0.1  # in log space: the reference is 10 % worse than the worst feasible value


def stop_reason(
    points: Sequence[Point | None],
    gains: Sequence[float | None],
    in_doubt: Sequence[float | None],
) -> str | None:
    """Return why the search should stop, or None.

    `gains` are the expected gains of the proposals, as shares, `in_doubt` those by models that are
    less certain, of the proposals that were chosen by these. If the gains are known, 15 in a row
    below `IDLE_GAIN`, and below `IDLE_GAIN_IN_DOUBT` in doubt, stop the search. Otherwise a front
    that has stopped growing does.
    """
    recent = [gain for gain in gains[-IDLE_PROPOSALS:] if gain is not None]
    if len(recent) == IDLE_PROPOSALS:
        doubted = [gain for gain in in_doubt[-IDLE_PROPOSALS:] if gain is not None]
        is_idle = max(recent) < IDLE_GAIN and max(doubted, default=0.0) < IDLE_GAIN_IN_DOUBT
        if len(points) < LEAST_EVALUATIONS or not is_idle:
            return None
        return (
            f"each of the last {IDLE_PROPOSALS} configurations was expected to add less than "
            f"{100 * IDLE_GAIN:.2f} %"
        )
    last = stagnation(points)
    return None if last is None else f"its front has not grown in the last {last} evaluations"


def stagnation(points: Sequence[Point | None]) -> int | None:
    """Return for how many evaluations the hypervolume has grown by no more than 1 %, or None.

    `points` are the costs (logs) in the order of evaluation, None where an SLO was missed. The rule
    looks at the last third of the evaluations, at least 40. The reference point is 10 % worse than
    the worst feasible value of each objective.
    """
    last = max(LEAST_EVALUATIONS, round(len(points) * _LEAST_SHARE))
    feasible = [p for p in points if p is not None]
    if len(points) <= last or not feasible:
        return None
    reference = reference_point(feasible, least_margin=_MARGIN)
    before = hypervolume([p for p in points[:-last] if p is not None], reference)
    now = hypervolume(feasible, reference)
    return last if before > 0.0 and now - before <= _GROWTH * now else None
