from __future__ import annotations

import numpy as np
import pytest

from tuner.search.acquisition import Worth
from tuner.search.improvement import hypervolume, mean_log_improvement, pareto

REFERENCE = np.array([1.0, 1.0])
WORTH = Worth(REFERENCE, 1.0)


def test_gains_without_logs_are_those_with_them_where_it_matters() -> None:
    rng = np.random.default_rng(4)
    fronts = [pareto(rng.random((8, 2))) for _ in range(3)]
    means, sds = rng.random((3, 200, 2)) * 1.5, rng.uniform(1e-3, 0.2, (200, 2))
    shares = np.log(rng.random(200))
    exact = WORTH.exact_log_gains(means, sds, fronts) + shares
    found = WORTH.log_gains(means, sds, fronts, shares)
    matters = exact > exact.max() + np.log(1e-6)
    assert 10 < matters.sum() < 200
    assert found[matters] == pytest.approx(exact[matters], abs=1e-5)
    assert (found[~matters] < exact.max() + np.log(2e-6)).all()


def test_gains_are_told_apart_where_all_are_hopeless() -> None:
    front = np.array([[0.1, 0.1]])
    means, sds = np.array([[[0.9, 0.9], [0.8, 0.8]]]), np.full((2, 2), 1e-3)
    worse, bad = WORTH.log_gains(means, sds, [front], np.zeros(2))
    assert -np.inf < worse < bad < -1000


def test_the_gain_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    front = pareto(rng.random((6, 2)))
    means, sds = rng.random((4, 2)), np.full((4, 2), 0.2)
    found = np.exp(WORTH.exact_log_gains(means[None], sds, [front]))
    for mean, sd, expected in zip(means, sds, found, strict=True):
        draws = mean + sd * rng.standard_normal((4_000, 2))
        gains = [WORTH.of(np.vstack([front, d])) - WORTH.of(front) for d in draws]
        assert expected == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / 4_000**0.5)


def test_the_least_of_the_first_objective_is_worth_more_than_its_slice() -> None:
    front = np.array([[0.5, 0.2]])
    least, middle = np.array([[0.4, 0.99]]), np.array([[0.6, 0.1]])
    assert hypervolume(np.vstack([front, least]), REFERENCE) < hypervolume(
        np.vstack([front, middle]), REFERENCE
    )
    assert WORTH.of(np.vstack([front, least])) > WORTH.of(np.vstack([front, middle]))


def test_one_objective_and_three_are_the_volume_alone() -> None:
    rng = np.random.default_rng(1)
    for outputs in (1, 3):
        means = rng.random((5, outputs))
        worth = Worth.around(means, np.ones(5, dtype=np.bool_))
        assert worth.of(means) == hypervolume(means, worth.reference)
        front, sds = pareto(means), np.full((5, outputs), 0.1)
        assert worth.log_gains(means[None], sds, [front], np.zeros(5)) == pytest.approx(
            mean_log_improvement(means[None], sds, [front], worth.reference)
        )
