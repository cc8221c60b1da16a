from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from tuner.search.improvement import (
    hypervolume,
    log_expected_below,
    log_improvement,
    mean_log_improvement,
    pareto,
)

REFERENCE = np.array([1.0, 1.0])
unit = st.floats(0.0, 1.0)
points = st.lists(st.tuples(unit, unit), min_size=1, max_size=12).map(np.array)


@given(points, st.randoms(use_true_random=False))
def test_the_hypervolume_does_not_depend_on_order_or_duplicates(found, random) -> None:
    shuffled = [*found, *found]
    random.shuffle(shuffled)
    assert hypervolume(np.array(shuffled), REFERENCE) == pytest.approx(
        hypervolume(found, REFERENCE)
    )


@given(points, st.tuples(unit, unit))
def test_a_point_more_never_lowers_the_hypervolume(found, more) -> None:
    larger = hypervolume(np.vstack([found, more]), REFERENCE)
    assert larger >= hypervolume(found, REFERENCE) - 1e-12


@given(points)
def test_no_row_of_a_front_dominates_another(found) -> None:
    front = pareto(found)
    for i, a in enumerate(front):
        assert not any((a <= b).all() for j, b in enumerate(front) if i != j)
    assert hypervolume(front, REFERENCE) == pytest.approx(hypervolume(found, REFERENCE))


def test_the_hypervolume_of_two_rectangles() -> None:
    assert hypervolume(np.array([[0.2, 0.5], [0.6, 0.1]]), REFERENCE) == pytest.approx(
        0.4 * 0.5 + 0.4 * 0.9
    )
    assert hypervolume(np.array([[0.25], [0.5]]), np.array([1.0])) == 0.75


@pytest.mark.parametrize("z", [-1e3, -100.0, -30.01, -29.99, -8.0, -1.001, -0.999, 0.0, 5.0])
def test_the_expectation_below_a_bound_has_the_right_slope(z: float) -> None:
    """Its derivative by the bound is the normal distribution function; compared in logs."""
    step = 1e-6 * max(1.0, abs(z))
    mean, sd = np.zeros(1), np.ones(1)
    high = log_expected_below(z + step, mean, sd)[0]
    low = log_expected_below(z - step, mean, sd)[0]
    middle = log_expected_below(z, mean, sd)[0]
    slope = np.log((high - low) / (2 * step)) + middle
    assert slope == pytest.approx(norm.logcdf(z), abs=2e-3)


def test_the_improvement_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    front = pareto(rng.random((6, 2)))
    means, sds = rng.random((4, 2)), np.full((4, 2), 0.2)
    found = np.exp(log_improvement(means, sds, front, REFERENCE))
    base = hypervolume(front, REFERENCE)
    for mean, sd, expected in zip(means, sds, found, strict=True):
        draws = mean + sd * rng.standard_normal((4_000, 2))
        gains = [hypervolume(np.vstack([front, d]), REFERENCE) - base for d in draws]
        assert expected == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / 4_000**0.5)


def test_hopeless_points_are_still_told_apart() -> None:
    front = np.array([[0.1, 0.1]])
    means, sds = np.array([[0.9, 0.9], [0.8, 0.8]]), np.full((2, 2), 1e-3)
    worse, bad = log_improvement(means, sds, front, REFERENCE)
    assert -np.inf < worse < bad < -1000


def test_without_a_front_the_whole_rectangle_counts() -> None:
    means, sds = np.array([[0.25, 0.5]]), np.full((1, 2), 1e-6)
    found = np.exp(log_improvement(means, sds, np.empty((0, 2)), REFERENCE))
    assert found == pytest.approx(0.75 * 0.5, rel=1e-4)


def test_three_objectives_rank_as_the_volume_does() -> None:
    reference, front = np.ones(3), np.array([[0.5, 0.5, 0.5]])
    means = np.array([[0.2, 0.2, 0.2], [0.4, 0.4, 0.4], [0.6, 0.6, 0.6], [0.1, 0.9, 0.9]])
    found = log_improvement(means, np.full((4, 3), 1e-6), front, reference)
    assert found[0] > found[1] > found[3] > found[2]
    assert hypervolume(means[:1], reference) > hypervolume(means[1:2], reference) > 0.0


def test_the_average_over_fronts_lies_between() -> None:
    fronts = [np.array([[0.1, 0.1]]), np.empty((0, 2))]
    means, sds = np.array([[0.3, 0.3]]), np.full((1, 2), 0.1)
    low, high = (log_improvement(means, sds, front, REFERENCE)[0] for front in fronts)
    (mean,) = mean_log_improvement(np.stack([means, means]), sds, fronts, REFERENCE)
    assert np.exp(mean) == pytest.approx((np.exp(low) + np.exp(high)) / 2)
