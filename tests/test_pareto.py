"""The Pareto front, the hypervolume under it, and its knee."""

from __future__ import annotations

import itertools
import math
import random as chance

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.pareto import (
    dominates,
    hypervolume,
    knee,
    pareto_front,
    reference_point,
    spread_order,
)

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25)
Rows = list[tuple[float, ...]]
coordinate = st.integers(0, 5).map(float)


def rows(objectives: int, *, at_least: int = 0, most: int = 12) -> st.SearchStrategy[Rows]:
    return st.lists(st.tuples(*[coordinate] * objectives), min_size=at_least, max_size=most)


ANY_ROWS = st.integers(1, 4).flatmap(lambda k: rows(k, at_least=1))


def shuffled(points: Rows, random: chance.Random) -> Rows:
    doubled = points + points
    random.shuffle(doubled)
    return doubled


@given(ANY_ROWS)
def test_the_front_is_what_nothing_dominates(points: Rows) -> None:
    expected = {p for p in points if not any(dominates(other, p) for other in points)}
    front = [points[i] for i in pareto_front(points)]
    assert front == sorted(expected)
    assert pareto_front(points) == [points.index(p) for p in front]  # of equals the first


@given(ANY_ROWS, st.randoms(use_true_random=False))
def test_order_and_duplicates_change_neither_front_nor_volume(
    points: Rows, random: chance.Random
) -> None:
    doubled = shuffled(points, random)
    assert [points[i] for i in pareto_front(points)] == [doubled[i] for i in pareto_front(doubled)]
    reference = [6.0] * len(points[0])
    assert hypervolume(doubled, reference) == hypervolume(points, reference)


@given(ANY_ROWS, st.data())
def test_a_point_more_never_lowers_the_volume(points: Rows, data: st.DataObject) -> None:
    more = data.draw(st.tuples(*[coordinate] * len(points[0])))
    reference = [5.0] * len(more)
    assert hypervolume([*points, more], reference) >= hypervolume(points, reference)


@given(ANY_ROWS)
def test_the_volume_is_that_of_the_unit_cells_it_covers(points: Rows) -> None:
    objectives = len(points[0])
    cells = itertools.product(range(5), repeat=objectives)
    covered = sum(
        any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points)
        for cell in cells
    )
    assert hypervolume(points, [5.0] * objectives) == pytest.approx(covered)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_front_has_the_volume_of_all(points: Rows) -> None:
    front = [points[i] for i in pareto_front(points)]
    assert hypervolume(front, (1.0, 1.0)) == pytest.approx(hypervolume(points, (1.0, 1.0)))


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([], (1.0, 1.0), 0.0),
        ([(0.0, 0.0)], (2.0, 3.0), 6.0),
        ([(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)], (3.0, 3.0), 6.0),
        ([(0.2, 0.5), (0.6, 0.1)], (1.0, 1.0), 0.4 * 0.5 + 0.4 * 0.9),
        ([(4.0, 0.0)], (3.0, 3.0), 0.0),
        ([(1.0,)], (3.0,), 2.0),
        ([(0.25,), (0.5,)], (1.0,), 0.75),
        ([(0.0, 0.0, 1.0), (1.0, 1.0, 0.0)], (2.0, 2.0, 2.0), 5.0),
    ],
)
def test_known_volumes(points: Rows, reference: tuple[float, ...], volume: float) -> None:
    assert hypervolume(points, reference) == pytest.approx(volume)


def test_the_reference_is_the_worst_and_a_margin() -> None:
    points = [(1.0, 5.0), (3.0, 5.0)]
    assert reference_point(points).tolist() == [3.0, 5.0]
    by_extent = reference_point(points, extent_share=0.1, least_margin=0.01)
    assert by_extent == pytest.approx(np.array([3.2, 5.01]))
    assert reference_point(points, least_margin=0.5).tolist() == [3.5, 5.5]
    with pytest.raises(ValueError, match="zero-size"):
        reference_point(np.empty((0, 2)))


@given(ANY_ROWS)
def test_every_point_dominates_something_up_to_the_reference(points: Rows) -> None:
    reference = reference_point(points, extent_share=0.1, least_margin=0.01)
    assert all(hypervolume([point], reference) > 0.0 for point in points)


def test_the_knee_is_farthest_below_the_line_between_the_ends() -> None:
    front = [(0.0, 10.0), (1.0, 9.0), (2.0, 2.0), (3.0, 1.9), (10.0, 0.0)]
    line = (front[-1][0] - front[0][0], front[-1][1] - front[0][1])
    below = [
        ((x - front[0][0]) * -line[1] + (y - front[0][1]) * line[0]) / -math.hypot(*line)
        for x, y in front
    ]
    assert knee(front) == int(np.argmax(below)) == 2
    assert knee([(5.0,)]) == 0
    with pytest.raises(ValueError, match="empty"):
        knee([])


@given(rows(2, at_least=1))
def test_the_knee_does_not_depend_on_units(points: Rows) -> None:
    front = [points[i] for i in pareto_front(points)]
    assert knee(front) == knee([(4 * x + 1, y / 2) for x, y in front])


def test_a_small_front() -> None:
    points = [(1, 5), (2, 2), (3, 3), (5, 1), (2, 2)]
    assert pareto_front(points) == [0, 1, 3]


@given(POINTS)
def test_nothing_dominates_a_member_and_a_member_covers_everything(
    points: list[tuple[int, int]],
) -> None:
    front = [points[i] for i in pareto_front(points)]
    assert len(set(front)) == len(front)
    for member in front:
        assert not any(dominates(other, member) for other in points)
    for point in points:
        assert any(m == point or dominates(m, point) for m in front)


def test_a_front_is_gone_over_by_its_ends_and_its_knee_first() -> None:
    front = [(0.0, 10.0), (1.0, 9.0), (2.0, 2.0), (3.0, 1.9), (6.0, 1.0), (10.0, 0.0)]
    assert spread_order(front, []) == [0, 2, 5, 4, 1, 3]
    assert spread_order(front, [0, 5]) == [2, 4, 1, 3]
    assert spread_order([(5.0,)], []) == [0] and spread_order([], []) == []


@given(POINTS)
def test_a_front_is_gone_over_once_whatever_its_units(points: list[tuple[int, int]]) -> None:
    front = [points[i] for i in pareto_front(points)]
    order = spread_order(front, [])
    assert sorted(order) == list(range(len(front)))
    assert order == spread_order([(4 * x + 1, y / 2) for x, y in front], [])
