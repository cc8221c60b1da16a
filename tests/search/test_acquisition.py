from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from tuner.pareto import hypervolume, pareto_front
from tuner.search.acquisition import (
    Utility,
    expected_lowering,
    log_expected_below,
    log_improvement,
)
from tuner.search.space import Floats

REFERENCE = np.array([1.0, 1.0])
UTILITY = Utility(REFERENCE, 1.0)


def front_of(points: Floats) -> Floats:
    return points[pareto_front(points)]


def test_gains_without_logs_are_those_with_them_where_it_matters() -> None:
    rng = np.random.default_rng(4)
    fronts = [front_of(rng.random((8, 2))) for _ in range(3)]
    means, sds = rng.random((3, 200, 2)) * 1.5, rng.uniform(1e-3, 0.2, (200, 2))
    shares = np.log(rng.random((3, 200)))
    exact = UTILITY.exact_log_gains(means, sds, fronts, shares)
    found = UTILITY.log_gains(means, sds, fronts, shares)
    matters = exact > exact.max() + np.log(1e-6)
    assert 10 < matters.sum() < 200
    assert found[matters] == pytest.approx(exact[matters], abs=1e-5)
    assert (found[~matters] < exact.max() + np.log(2e-6)).all()


def test_gains_are_told_apart_where_all_are_hopeless() -> None:
    front = np.array([[0.1, 0.1]])
    means, sds = np.array([[[0.9, 0.9], [0.8, 0.8]]]), np.full((2, 2), 1e-3)
    worse, bad = UTILITY.log_gains(means, sds, [front], np.zeros((1, 2)))
    assert -np.inf < worse < bad < -1000


def test_the_gain_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    front = front_of(rng.random((6, 2)))
    means, sds = rng.random((4, 2)), np.full((4, 2), 0.2)
    found = np.exp(UTILITY.exact_log_gains(means[None], sds, [front], np.zeros((1, 4))))
    for mean, sd, expected in zip(means, sds, found, strict=True):
        draws = mean + sd * rng.standard_normal((4_000, 2))
        gains = [UTILITY.of(np.vstack([front, d])) - UTILITY.of(front) for d in draws]
        assert expected == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / 4_000**0.5)


def test_the_least_of_the_first_objective_is_worth_more_than_its_slice() -> None:
    front = np.array([[0.5, 0.2]])
    least, middle = np.array([[0.4, 0.99]]), np.array([[0.6, 0.1]])
    assert hypervolume(np.vstack([front, least]), REFERENCE) < hypervolume(
        np.vstack([front, middle]), REFERENCE
    )
    assert UTILITY.of(np.vstack([front, least])) > UTILITY.of(np.vstack([front, middle]))


def test_one_objective_and_three_are_the_volume_alone() -> None:
    rng = np.random.default_rng(1)
    for outputs in (1, 3):
        means = rng.random((5, outputs))
        utility = Utility.around(means, np.ones(5, dtype=np.bool_), np.empty((0, outputs)))
        # of three only up to the volume of the unit ball's octant, and along a few rays
        factor = 1.0 if outputs == 1 else math.pi / 6
        assert factor * utility.of(means) == pytest.approx(
            hypervolume(means, utility.reference), rel=1e-12 if outputs == 1 else 0.1
        )
        front, sds = front_of(means), np.full((5, outputs), 0.1)
        assert utility.log_gains(means[None], sds, [front], np.zeros((1, 5))) == pytest.approx(
            log_improvement(means, sds, front, utility.reference)
        )


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


def test_one_violation_falls_as_one_objective_does() -> None:
    means, sds = np.linspace(-0.3, 0.8, 12)[:, None], np.full((12, 1), 0.1)
    below = np.exp(log_expected_below(0.2, means[:, 0], sds[:, 0]))
    assert expected_lowering(0.2, means, sds) == pytest.approx(below, rel=0.01, abs=1e-5)


def test_the_largest_violation_falls_as_in_many_draws() -> None:
    rng = np.random.default_rng(0)
    means, sds = rng.uniform(-0.3, 0.3, (6, 2)), rng.uniform(0.01, 0.2, (6, 2))
    for mean, sd, expected in zip(means, sds, expected_lowering(0.1, means, sds), strict=True):
        draws = np.maximum(0.1 - (mean + sd * rng.standard_normal((4_000, 2))).max(axis=1), 0.0)
        assert expected == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / 4_000**0.5 + 1e-4)


def test_a_doubtful_violation_may_fall_further_than_one_that_is_likelier_to_be_met() -> None:
    means, sds = np.array([[0.01], [0.08]]), np.array([[0.02], [0.09]])
    known, doubtful = norm.cdf(-means[:, 0] / sds[:, 0])
    assert known > doubtful
    known, doubtful = expected_lowering(0.0, means, sds)
    assert known < doubtful


def test_the_improvement_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    front = front_of(rng.random((6, 2)))
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
    utility = Utility(reference, 0.0)
    assert utility.of(means[:1]) > utility.of(means[1:2]) > 0.0
    assert hypervolume(means[:1], reference) > hypervolume(means[1:2], reference) > 0.0


def test_a_gain_counts_in_the_samples_in_which_its_point_is_feasible() -> None:
    fronts = [np.array([[0.1, 0.1]]), np.empty((0, 2))]
    means, sds = np.array([[0.3, 0.3]]), np.full((1, 2), 0.1)
    log_shares = np.log(np.array([[0.9], [0.2]]))
    none = np.zeros((1, 1))
    low, high = (UTILITY.exact_log_gains(means[None], sds, [front], none)[0] for front in fronts)
    (mean,) = UTILITY.log_gains(np.stack([means, means]), sds, fronts, log_shares)
    assert np.exp(mean) == pytest.approx((0.9 * np.exp(low) + 0.2 * np.exp(high)) / 2)


def test_the_reference_lies_beyond_the_front_that_is_expected_elsewhere() -> None:
    means, likely = np.array([[0.2, 0.4], [0.3, 0.3]]), np.ones(2, dtype=np.bool_)
    elsewhere = np.array([[0.9, 0.1], [0.95, 0.2]])  # the second is dominated
    near = Utility.around(means, likely, np.empty((0, 2)))
    far = Utility.around(means, likely, elsewhere)
    assert near.reference == pytest.approx([0.31, 0.41])
    assert far.reference == pytest.approx([0.97, 0.43])
    beyond = np.array([[0.9, 0.1]])
    assert near.of(np.vstack([means, beyond])) == near.of(means)
    assert far.of(np.vstack([means, beyond])) > far.of(means)
