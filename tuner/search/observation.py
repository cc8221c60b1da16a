"""Observation: the result of an evaluation; and the suggestion of the next point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.search.space import Key, Point, Space


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """The result of one evaluation.

    Attributes:
        point: what was evaluated.
        works: False for a point that crashes or cannot be evaluated at all.
        overload: log of the load offered over that served, 0 where it keeps up; None if that is
            not known.
        cause: why it does not work, in words that name the root; None if that is not known.
        objectives: each is to be minimised; None where unknown. Logs of positive quantities fit
            the model best.
        violations: one per constraint, met at <= 0; None where unknown. Logs of ratios fit best.
        at_least: indices of violations that are lower bounds, of an evaluation that ended early.
        launch_s: how long the launch took; None if the server was warm.
        wall_s: how long it took altogether, with the launch; None if unknown.
        card: what it was evaluated on, where several are compared.
    """

    point: Point
    works: bool = True
    objectives: tuple[float | None, ...] = ()
    violations: tuple[float | None, ...] = ()
    at_least: tuple[int, ...] = ()
    launch_s: float | None = None
    wall_s: float | None = None
    cause: str | None = None
    overload: float | None = None
    card: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Suggestion:
    """A point to evaluate next, and why.

    Reasons are `default`, `start`, `improvement`, `repeat` and, where no improvement is expected,
    `doubt`: the best point if the models were less certain.

    `gain` is the expected added hypervolume, as a share of the hypervolume dominated already; None
    while no point is likely to be feasible. `gain_in_doubt` is that of a doubt, by the less certain
    models. A search whose gains stay small, doubted or not, is done.
    """

    point: Point
    reason: str
    gain: float | None = None
    gain_in_doubt: float | None = None


def working_points(space: Space, observations: Sequence[Observation]) -> list[Point]:
    """Return each point that was evaluated and works, once, in the order of evaluation."""
    points: dict[Key, Point] = {}
    for observation in observations:
        if observation.works:
            points.setdefault(space.key(observation.point), observation.point)
    return list(points.values())
