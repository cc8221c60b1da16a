"""The stop rule, and the hypervolume under it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.study.proposals.stopping import (
    IDLE_PROPOSALS,
    LEAST_EVALUATIONS,
    flat_for,
    hypervolume,
    why_stop,
)

coordinate = st.integers(0, 5).map(float)


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([], (1.0, 1.0), 0.0),
        ([(0.0, 0.0)], (2.0, 3.0), 6.0),
        ([(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)], (3.0, 3.0), 6.0),
        ([(4.0, 0.0)], (3.0, 3.0), 0.0),
        ([(1.0,)], (3.0,), 2.0),
        ([(0.0, 0.0, 1.0), (1.0, 1.0, 0.0)], (2.0, 2.0, 2.0), 5.0),
    ],
)
def test_known_volumes(
    points: list[tuple[float, ...]], reference: tuple[float, ...], volume: float
) -> None:
    assert hypervolume(points, reference) == pytest.approx(volume)


@given(st.lists(st.tuples(coordinate, coordinate, coordinate), max_size=6))
def test_the_volume_is_that_of_the_unit_cells_it_covers(
    points: list[tuple[float, float, float]],
) -> None:
    cells = itertools.product(range(5), repeat=3)
    covered = sum(
        any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points)
        for cell in cells
    )
    assert hypervolume(points, (5.0, 5.0, 5.0)) == pytest.approx(covered)


def test_a_search_is_flat_only_after_many_evaluations_without_growth() -> None:
    start = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    dull: list[tuple[float, ...] | None] = [None, (1.0, 1.0)] * LEAST_EVALUATIONS
    assert flat_for([*start, *dull[: LEAST_EVALUATIONS - 1]]) is None
    assert flat_for([*start, *dull[:LEAST_EVALUATIONS]]) == LEAST_EVALUATIONS
    better = (0.0, 0.0)
    assert flat_for([*start, *dull[: LEAST_EVALUATIONS - 1], better]) is None
    # late in a long search the last third counts
    assert flat_for([*start, *dull, *dull, *dull]) == round((3 + 6 * LEAST_EVALUATIONS) / 3)


def test_a_search_that_found_nothing_goes_on() -> None:
    assert flat_for([None] * 200) is None


def test_the_search_stops_when_the_model_expects_nothing_more() -> None:
    grown = [(10.0 - 0.1 * i, 10.0 - 0.1 * i) for i in range(60)]  # each better than the last
    flat = [(1.0, 1.0)] * 200
    small = [None, *[0.2] * 20, *[4e-4] * IDLE_PROPOSALS]
    found = why_stop(grown, small)
    assert found is not None and "0.05%" in found
    assert why_stop(grown, small[:-1]) is None  # one less
    assert why_stop(grown[:30], small) is None  # too early to say
    assert why_stop(flat, [*small, 2e-3]) is None  # one that promises more goes on
    told = why_stop(flat, [None] * 200)
    assert told is not None and "not grown" in told
    assert why_stop(grown, [None] * 60) is None
