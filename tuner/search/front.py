"""Which evaluated points are worth having: certain of the constraints, and not dominated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.search.improvement import pareto
from tuner.search.observation import Observation
from tuner.search.posterior import Models
from tuner.search.space import Key, Point, Space


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A point of the front: what the model makes of all its evaluations, in the told units."""

    point: Point
    objectives: tuple[float, ...]
    probability: float


def distinct(space: Space, observations: Sequence[Observation]) -> list[Point]:
    """Return each point that was evaluated and works, once."""
    found: dict[Key, Point] = {}
    for observation in observations:
        if observation.works:
            found.setdefault(space.key(observation.point), observation.point)
    return list(found.values())


def front_of(models: Models, points: Sequence[Point], confidence: float) -> list[Member]:
    """Return the non-dominated of the points that meet every constraint with the confidence."""
    if not points:
        return []
    beliefs = models.at(models.space.coordinates_of(points))
    log_p = beliefs.log_feasible()
    sure = np.flatnonzero(log_p >= math.log(confidence))
    means = beliefs.objective_means[sure]
    kept = pareto(means)
    members = []
    for row in kept:
        index = int(sure[int(np.flatnonzero(np.all(means == row, axis=1))[0])])
        members.append(Member(points[index], tuple(map(float, row)), math.exp(log_p[index])))
    return members
