from __future__ import annotations

import numpy as np
import pytest

from tuner.search.space import Knob, Space

SPACE = Space(
    [
        Knob("sequences", (8, 16, 32, 64), log=True),
        Knob("dtype", ("auto", "fp8", "int8"), ordered=False, restarts=True),
        Knob("watts", (200, 300, 700)),
    ]
)


def test_levels_and_points_are_one_to_one() -> None:
    rows = SPACE.everything()
    assert len(rows) == SPACE.size == 36
    assert len({SPACE.key(SPACE.point(row)) for row in rows}) == 36
    for row in rows:
        assert (SPACE.levels_of(SPACE.point(row)) == row).all()


def test_coordinates_are_by_value_and_by_ratio_where_asked() -> None:
    (row,) = SPACE.coordinates_of([{"sequences": 16, "dtype": "fp8", "watts": 300}])
    assert row == pytest.approx([1 / 3, 1.0, 0.2])


def test_a_value_between_the_steps_has_a_place_and_a_key() -> None:
    point = {"sequences": 23, "dtype": "auto", "watts": 310}
    assert SPACE.point(SPACE.levels_of(point)) == {"sequences": 32, "dtype": "auto", "watts": 300}
    assert SPACE.key(point) != SPACE.key(SPACE.point(SPACE.levels_of(point)))


def test_binary_dust_does_not_make_another_point() -> None:
    space = Space([Knob("share", (0.1, 0.2, 0.3))])
    assert space.key({"share": 0.1 + 0.2}) == space.key({"share": 0.3})


def test_neighbours_change_one_knob_by_little() -> None:
    row = SPACE.levels_of({"sequences": 8, "dtype": "int8", "watts": 300})
    found = SPACE.neighbours(row[None, :])
    assert ((found != row).sum(axis=1) <= 1).all()
    # itself, two higher sequences, two other options, two other limits
    assert len(found) == 7


def test_neighbours_on_a_fine_grid_are_near_and_further() -> None:
    space = Space([Knob.between("share", 0.0, 1.0)])
    found = space.neighbours(np.array([[100]]))[:, 0]
    assert found.tolist() == [68, 92, 98, 99, 100, 101, 102, 108, 132]


def test_each_value_is_equally_likely() -> None:
    grid = (np.arange(12) + 0.5)[:, None] / 12
    (levels,) = SPACE.at(np.repeat(grid, 3, axis=1))[:, 0:1].T
    assert np.bincount(levels).tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("values", "log", "message"),
    [((), False, "no values"), ((2, 1), False, "ascend"), ((0, 1), True, "above 0")],
)
def test_bad_knobs(values: tuple[int, ...], log: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Knob("k", values, log=log)


def test_a_space_without_knobs_or_with_two_of_a_name() -> None:
    with pytest.raises(ValueError, match="no knob"):
        Space([])
    with pytest.raises(ValueError, match="twice"):
        Space([Knob("a", (1, 2)), Knob("a", (1, 2))])
