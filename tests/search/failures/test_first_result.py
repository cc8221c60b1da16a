from __future__ import annotations

import math

import numpy as np
import pytest

from tuner.search.failures.first_result import log_promise
from tuner.search.observation import Observation
from tuner.search.posterior import fit_constraints
from tuner.search.search import Search
from tuner.search.space import Knob, Point, Space

SPACE = Space(
    [
        Knob("power", tuple(range(8))),
        Knob("batch", tuple(range(8))),
        Knob("gpus", (1, 2), restarts=True),
    ]
)
DEFAULT = {"power": 7, "batch": 7, "gpus": 1}


def log_capacity(point: Point) -> float:
    power, batch = float(point["power"]) / 7, float(point["batch"]) / 7
    return 1.2 * power + 0.8 * batch + 0.7 * (float(point["gpus"]) - 1.0) - 2.25


def evaluate(point: Point) -> Observation:
    """One point in twelve keeps up, and only with two GPUs."""
    share = log_capacity(point)
    if share < 0.0:
        return Observation(point, works=False, overload=-share, launch_s=150.0, wall_s=205.0)
    return Observation(
        point, objectives=(share,), violations=(0.0,), overload=0.0, launch_s=150.0, wall_s=250.0
    )


@pytest.mark.parametrize("seed", range(4))
def test_how_far_points_fall_behind_says_where_one_keeps_up(seed: int) -> None:
    feasible = np.mean([log_capacity(SPACE.point(r)) >= 0.0 for r in SPACE.everything()])
    assert feasible < 1 / 12
    search, seen = Search(SPACE, violations=1, default=DEFAULT, seed=seed), list[Observation]()
    while not (seen and seen[-1].works):
        seen.append(evaluate(search.propose(seen).point))
    assert len(seen) <= 14  # of random ones half of the searches would need more beside the nine


def test_early_ends_say_in_which_direction_the_slo_is_met() -> None:
    """A point far from the bound promises less than one beside the point that misses the least."""
    ended = [
        Observation(
            {"power": power, "batch": 4, "gpus": 1},
            objectives=(None,),
            violations=(1.4 - 0.2 * power,),
            at_least=(0,),
        )
        for power in (0, 1, 2, 4)
    ]
    models = fit_constraints(SPACE, ended, 1)
    assert not models.objectives
    rows = np.array([[6, 4, 0], [3, 4, 0]])
    better, worse = log_promise(models, rows, SPACE.coordinates_of([o.point for o in ended]))
    assert better > worse + math.log(3.0)


def test_a_constraint_that_was_seen_once_promises_nothing() -> None:
    once = Observation({"power": 1, "batch": 1, "gpus": 1}, violations=(0.4,), objectives=(1.0,))
    models = fit_constraints(SPACE, [once], 1)
    assert not models.violations
    rows = SPACE.everything()
    assert (log_promise(models, rows, SPACE.coordinates_of([once.point])) == 0.0).all()
