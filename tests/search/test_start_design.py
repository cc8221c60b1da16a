from __future__ import annotations

import itertools

from tuner.search.space import Knob, Point, Space
from tuner.search.start_design import start_points

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
