from __future__ import annotations

import itertools

from tuner.search.observation import Observation
from tuner.search.space import Condition, Knob, Point, Space
from tuner.search.start_design import StartDesign, option_points, start_points

SPACE = Space(
    [
        Knob("live", tuple(range(64))),
        Knob("device", tuple(range(16))),
        Knob("launch", tuple(range(8)), restarts=True),
    ]
)


def anything(_: Point) -> bool:
    return True


def test_each_launch_serves_several_points_and_the_default_comes_first() -> None:
    default = {"live": 63, "device": 15, "launch": 7}
    points = start_points(SPACE, 12, 0, anything, default)
    launches = [int(point["launch"]) for point in points]
    runs = [(value, len(list(same))) for value, same in itertools.groupby(launches)]
    assert launches[0] == 7
    assert len(runs) <= 3 < len(points)
    assert len({SPACE.key(point) for point in points}) == 12


def test_they_fill_the_space() -> None:
    points = start_points(SPACE, 16, 3, anything, None)
    for name, size in (("live", 64), ("device", 16)):
        quarters = {int(point[name]) * 4 // size for point in points}
        assert quarters == {0, 1, 2, 3}


def test_only_what_is_possible() -> None:
    points = start_points(SPACE, 10, 1, lambda p: int(p["live"]) >= 32, None)
    assert len(points) == 10
    assert all(int(point["live"]) >= 32 for point in points)


def test_none_and_too_many() -> None:
    small = Space([Knob("a", (1, 2))])
    assert start_points(small, 0, 0, anything, None) == []
    assert len(start_points(small, 9, 0, anything, None)) == 2


def test_another_seed_other_points() -> None:
    one, other = (start_points(SPACE, 8, seed, anything, None) for seed in (0, 1))
    assert one != other
    assert one == start_points(SPACE, 8, 0, anything, None)


MANY = Space(
    [
        Knob("live", tuple(range(64))),
        Knob("weights", ("own", "fp8", "int4"), ordered=False, restarts=True),
        Knob("draft", ("none", "ngram"), ordered=False, restarts=True),
        Knob("depth", (1, 2, 4, 8, 16), restarts=True, condition=Condition("draft", "ngram")),
        Knob("gpus", (1, 2, 4, 8), restarts=True, discrete=True),
    ]
)
DEFAULT = {"live": 63, "weights": "own", "draft": "none", "depth": 1, "gpus": 2}


def test_each_other_option_of_a_launch_is_tried_alone_beside_the_default() -> None:
    points = option_points(MANY, anything, DEFAULT)
    changes = [{k: v for k, v in point.items() if v != DEFAULT[k]} for point in points]
    assert changes == [
        {"weights": "fp8"},
        {"draft": "ngram", "depth": 4},
        {"gpus": 4},
        {"weights": "int4"},
        {"gpus": 1},
    ]


def test_options_that_are_impossible_are_left_out_and_one_alone_is_not_worth_it() -> None:
    points = option_points(MANY, lambda p: p["gpus"] == 2 and p["weights"] != "int4", DEFAULT)
    assert [point["weights"] for point in points] == ["fp8", "own"]
    assert option_points(MANY, lambda p: p["weights"] == "fp8", DEFAULT) == []
    assert option_points(MANY, anything, None) == []
    assert option_points(SPACE, anything, {"live": 63, "device": 15, "launch": 7}) == []


def changes_of(points: list[Point], base: Point) -> list[dict[str, object]]:
    return [{k: v for k, v in point.items() if v != base[k]} for point in points]


def test_beside_a_default_that_fails_more_gpus_come_first() -> None:
    design = StartDesign(MANY, None, 0, anything, DEFAULT)
    points = design.points([Observation(DEFAULT, works=False)], lambda _: False)
    assert changes_of(points, DEFAULT)[:3] == [
        {"gpus": 4},
        {"weights": "fp8"},
        {"draft": "ngram", "depth": 4},
    ]
    on_its_launch = [p for p in points if {**p, "live": 63} == DEFAULT]
    assert not on_its_launch


def test_the_first_point_that_works_takes_the_place_of_a_default_that_fails() -> None:
    design = StartDesign(MANY, None, 0, anything, DEFAULT)
    base = {**DEFAULT, "gpus": 4}
    seen = [
        Observation(DEFAULT, works=False),
        Observation(base),
        Observation(DEFAULT | {"gpus": 1}),
    ]
    for count in (2, 3):  # what works later changes nothing
        points = design.points(seen[:count], lambda _: False)
        assert all({**p, "live": 63} == base for p in points[:4])
        assert {"weights": "fp8"} in changes_of(points, base)
        assert {"draft": "ngram", "depth": 4} in changes_of(points, base)


def test_a_default_that_works_keeps_its_place() -> None:
    design = StartDesign(MANY, None, 0, anything, DEFAULT)
    before = design.points([], lambda _: False)
    works, fails = Observation(DEFAULT), Observation({**DEFAULT, "gpus": 4}, works=False)
    assert design.points([works, fails], lambda _: False) == before
    assert all({**p, "live": 63} == DEFAULT for p in before[:4])
