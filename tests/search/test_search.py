from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from helpers import foreign_function

from tuner.pareto import hypervolume
from tuner.search.observation import Observation
from tuner.search.search import IDLE_GAIN, ExhaustedError, Search
from tuner.search.space import Knob, Point, Space

SPACE = Space(
    [
        Knob("live", tuple(range(12))),
        Knob("device", tuple(range(12))),
        Knob("launch", ("a", "b"), ordered=False, restarts=True),
    ]
)
DEFAULT = {"live": 11, "device": 11, "launch": "a"}


def evaluate(point: Point, rng: np.random.Generator | None = None) -> Observation:
    """Two objectives that pull apart, one constraint, and a corner that crashes."""
    x, y = int(point["live"]) / 11, int(point["device"]) / 11
    if x + y < 0.3:
        return Observation(point, works=False)
    better = 0.2 if point["launch"] == "b" else 0.0
    noise = np.zeros(3) if rng is None else 0.02 * rng.standard_normal(3)
    objectives = (x + 0.3 * y - better, (1 - x) ** 2 + (y - 0.5) ** 2)
    return Observation(
        point,
        objectives=(objectives[0] + noise[0], objectives[1] + noise[1]),
        violations=(y - 0.7 + noise[2],),
    )


def run(search: Search, count: int, noisy: bool = True) -> list[Observation]:
    rng = np.random.default_rng(0) if noisy else None
    seen: list[Observation] = []
    for _ in range(count):
        seen.append(evaluate(search.propose(seen).point, rng))
    return seen


def share_found(seen: Sequence[Observation]) -> float:
    def volume(points: Sequence[Point]) -> float:
        truths = [evaluate(point) for point in points]
        good = [t.objectives for t in truths if t.works and (t.violations[0] or 0.0) <= 0]
        return hypervolume(np.array(good, dtype=float).reshape(-1, 2), np.array([1.2, 1.2]))

    everything = [SPACE.point(row) for row in SPACE.everything()]
    return volume([o.point for o in seen]) / volume(everything)


def test_the_default_comes_first_then_starts_then_what_the_model_expects() -> None:
    search = Search(SPACE, violations=1, default=DEFAULT, starts=4)
    seen, reasons = [], []
    for _ in range(6):
        suggestion = search.propose(seen)
        reasons.append(suggestion.reason)
        seen.append(evaluate(suggestion.point))
    assert reasons == ["default", "start", "start", "start", "start", "improvement"]
    assert seen[0].point == DEFAULT


@pytest.fixture(scope="module")
def night() -> list[Observation]:
    return run(Search(SPACE, violations=1, default=DEFAULT), 26)


def test_it_finds_the_front_of_a_noisy_function(night: list[Observation]) -> None:
    assert share_found(night) > 0.95
    rng = np.random.default_rng(1)
    everything = [SPACE.point(row) for row in SPACE.everything()]
    randoms = [everything[i] for i in rng.choice(len(everything), 26, replace=False)]
    assert share_found(night) > share_found([evaluate(p) for p in randoms])


def test_it_leaves_what_crashes_however_good_it_looks_from_beside() -> None:
    search, seen = Search(SPACE, violations=0, starts=8), list[Observation]()
    for _ in range(16):
        point = search.propose(seen).point
        x, y = int(point["live"]) / 11, int(point["device"]) / 11
        works = x >= 0.5  # and the objective draws to where it does not
        seen.append(Observation(point, works, (x + 0.1 * y,) if works else ()))
    assert sum(not o.works for o in seen[8:]) <= 5  # all eight without a model of crashes


@pytest.mark.parametrize("seed", [1, 4])
def test_before_anything_is_feasible_it_leaves_points_that_just_miss_a_bound(seed: int) -> None:
    """The best objectives are at an edge where each point misses the bound by less than noise."""
    space = Space([Knob.between(name, 0.0, 1.0) for name in ("a", "b", "c")])
    rng = np.random.default_rng(seed)
    rows = [(*rng.random(2), c, least) for c, least in [(1.0, 0.04)] * 16 + [(0.0, 0.3)] * 4]
    seen = [
        Observation(
            {"a": a, "b": b, "c": c},
            objectives=(a - c, -a - c),
            violations=(least + 0.04 * rng.standard_normal(),),
        )
        for a, b, c, least in rows
    ]
    found = Search(space, violations=1, starts=0, seed=seed).propose(seen)
    assert float(found.point["c"]) < 0.9
    assert found.reason == "improvement"
    assert found.gain is None


def test_what_is_not_possible_is_never_proposed() -> None:
    search = Search(SPACE, violations=1, is_possible=lambda p: p["launch"] == "b")
    assert {o.point["launch"] for o in run(search, 11)} == {"b"}


def test_pending_points_are_not_proposed_again() -> None:
    search = Search(SPACE, violations=1)
    seen = run(search, 10)
    first = search.propose(seen).point
    second = search.propose(seen, pending=[first]).point
    assert SPACE.key(first) != SPACE.key(second)


def test_a_point_is_repeated_only_where_its_standing_is_not_sure() -> None:
    small = Space([Knob("a", (0, 1, 2))])
    search = Search(small, violations=1, starts=3)

    def seen(margin: float, sd: float) -> list[Observation]:
        return [
            Observation(
                {"a": a},
                objectives=(-float(a),),
                violations=((a - 2) / 2 - margin + off,),
            )
            for a in (0, 1, 2)
            for off in (-sd, sd)
        ]

    with pytest.raises(ExhaustedError):
        search.propose(seen(margin=0.5, sd=0.001))
    doubtful = search.propose(seen(margin=0.005, sd=0.2))
    assert doubtful.reason == "repeat"


def test_a_repeat_that_gains_nothing_gives_way_to_doubt() -> None:
    """Two points at the bound differ by less than matters; elsewhere nothing was seen."""
    space, rng = Space([Knob("a", tuple(range(60)))]), np.random.default_rng(0)
    seen = [
        Observation(
            {"a": a},
            objectives=(1e-4 * (a > 19) + 0.05 * max(a - 20, 0) + 0.3 * (a < 19),),
            violations=((20.5 - a) / 20 + 0.05 * rng.standard_normal(),),
        )
        for a in (*range(0, 60, 4), *([20, 21] * 8))
    ]
    for _ in range(12):
        found = Search(space, violations=1, starts=0).propose(seen)
        assert found.reason != "repeat" or found.gain is None or found.gain >= IDLE_GAIN
        seen.append(Observation(found.point, objectives=(1.0,), violations=(0.2,)))


def test_the_same_seed_proposes_the_same() -> None:
    once, again = (run(Search(SPACE, violations=1, seed=4), 11) for _ in range(2))
    assert [o.point for o in once] == [o.point for o in again]


def test_without_constraints_and_with_one_objective() -> None:
    search, seen = Search(SPACE, violations=0), list[Observation]()
    for _ in range(24):
        point = search.propose(seen).point
        value = (int(point["live"]) - 4) ** 2 + int(point["device"])
        seen.append(Observation(point, objectives=(math.log1p(value),)))
    assert min(o.objectives[0] or 0.0 for o in seen) == 0.0


def test_while_everything_crashes_it_goes_on() -> None:
    search, seen = Search(SPACE, violations=1), list[Observation]()
    for _ in range(12):
        seen.append(Observation(search.propose(seen).point, works=False))
    assert len({SPACE.key(o.point) for o in seen}) == 12


def test_the_next_point_is_on_the_warm_server_where_launches_are_dear() -> None:
    def next_launch(warm: str, launch_s: float) -> object:
        rng = np.random.default_rng(3)
        rows = rng.permutation(SPACE.everything())[:14]
        points = [SPACE.point(row) for row in rows]
        seen = [
            dataclasses.replace(evaluate(p), launch_s=launch_s, wall_s=launch_s + 100.0)
            for p in points
        ]
        search = Search(SPACE, violations=1, starts=0)
        return search.propose(seen, warm={**DEFAULT, "launch": warm}).point["launch"]

    assert {next_launch(warm, 20_000.0) for warm in "ab"} == {"a", "b"}
    assert {next_launch(warm, 1.0) for warm in "ab"} == {"b"}  # the better one


def test_the_gain_becomes_small_when_all_is_found() -> None:
    search = Search(SPACE, violations=1, starts=8)
    seen: list[Observation] = []
    gains = []
    for _ in range(24):
        suggestion = search.propose(seen)
        gains.append(suggestion.gain)
        seen.append(evaluate(suggestion.point))
    assert gains[:8] == [None] * 8
    later = [gain for gain in gains[8:] if gain is not None]
    assert max(later[-5:]) < 0.3 * max(later[:5])


def test_a_foreign_function_in_a_few_lines() -> None:
    seen = foreign_function.main(20)
    values = np.array([o.objectives for o in seen if (o.violations[0] or 0.0) <= 0], dtype=float)
    rows = [
        foreign_function.evaluate({"x": i / 50, "y": j / 50}) for i in range(51) for j in range(51)
    ]
    grid = np.array([o.objectives for o in rows if (o.violations[0] or 0.0) <= 0], dtype=float)
    reference = np.array([80.0, 12.0])
    assert hypervolume(values, reference) > 0.85 * hypervolume(grid, reference)


def test_where_nothing_more_is_expected_the_models_are_doubted() -> None:
    search, rng = Search(SPACE, violations=1, default=DEFAULT), np.random.default_rng(0)
    seen: list[Observation] = []
    suggestions = []
    for _ in range(46):
        suggestions.append(search.propose(seen))
        if suggestions[-1].reason == "doubt":
            assert suggestions[-1].point not in [o.point for o in seen]
        seen.append(evaluate(suggestions[-1].point, rng))
    doubts = [s for s in suggestions if s.reason == "doubt"]
    assert doubts and {s.reason for s in suggestions} > {"doubt"}
    assert all((s.gain or 0.0) < IDLE_GAIN for s in doubts)
    assert all((s.gain_in_doubt or 0.0) > 0.0 for s in doubts)
    assert all(s.gain_in_doubt is None for s in suggestions if s not in doubts)
    assert all(s.gain is None or s.gain >= IDLE_GAIN for s in suggestions if s not in doubts)
