from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.search.launch_choice import Costs, choose_row, estimated_costs
from tuner.search.observation import Observation
from tuner.search.space import Floats, Knob, Levels, Space

SPACE = Space([Knob("live", tuple(range(10))), Knob("launch", (0, 1), restarts=True)])
WARM = np.array([5, 0])


def gains_of(per_launch: tuple[float, float]) -> Floats:
    """Each further evaluation of a launch brings as much as the first."""
    return np.log([per_launch[int(row[1])] * (1 - 0.001 * row[0]) for row in SPACE.everything()])


def choice(per_launch: tuple[float, float], costs: Costs, warm: Levels | None = WARM) -> int:
    pool, log_gains = SPACE.everything(), gains_of(per_launch)

    def gain(rows: Levels, after: Sequence[Levels]) -> Floats:
        return np.log([per_launch[int(row[1])] for row in rows])

    return int(choose_row(SPACE, pool, log_gains, gain, warm, costs)[1])


def test_it_stays_while_another_launch_brings_no_more_per_second() -> None:
    costs = Costs(launch_s=150.0, evaluation_s=100.0)
    # four evaluations there take 550 s: worth it above 550 / 400 = 1.375 times the gain
    assert choice((1.0, 1.3), costs) == 0
    assert choice((1.0, 1.45), costs) == 1


def test_a_dear_launch_is_made_for_more_only() -> None:
    assert choice((1.0, 3.0), Costs(launch_s=1200.0, evaluation_s=100.0)) == 0
    assert choice((1.0, 3.0), Costs(launch_s=100.0, evaluation_s=100.0)) == 1


def test_without_a_warm_server_the_best_launch_is_made() -> None:
    costs = Costs(launch_s=150.0, evaluation_s=100.0)
    assert choice((1.0, 1.01), costs, warm=None) == 1


def test_where_launches_are_free_the_best_point_is_taken() -> None:
    assert choice((1.0, 1.01), Costs(launch_s=0.0, evaluation_s=100.0)) == 1


def test_costs_are_the_medians_of_what_was_seen() -> None:
    point = {"live": 0, "launch": 0}
    seen = [
        Observation(point, launch_s=150.0, wall_s=250.0),
        Observation(point, wall_s=90.0),
        Observation(point, wall_s=110.0),
        Observation(point, works=False, launch_s=170.0, wall_s=170.0),
        Observation(point),
    ]
    assert estimated_costs(seen) == Costs(launch_s=160.0, evaluation_s=100.0)


def test_until_a_launch_was_seen_it_is_taken_to_cost_an_evaluation() -> None:
    point = {"live": 0, "launch": 0}
    assert estimated_costs([]) == Costs(launch_s=1.0, evaluation_s=1.0)
    assert estimated_costs([Observation(point, wall_s=90.0)]) == Costs(90.0, 90.0)
