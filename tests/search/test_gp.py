from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from tuner.search import gp as module
from tuner.search.gp import Data, GaussianProcess, Hyperparameters


def data(n: int = 30, noise: float = 0.0, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.random((n, 2))
    y = np.sin(5 * x[:, 0]) + noise * rng.standard_normal(n)  # the second knob does nothing
    return Data(x, y, np.zeros(n), np.array([False, False]))


def test_the_gradient_is_that_of_the_function() -> None:
    sample = data(12, noise=0.1)
    arguments = (module._Pairs(sample), sample.y, sample.extra_variances, np.zeros(6), np.ones(6))

    def value(logs: np.ndarray) -> float:
        return module._negative_log_posterior(logs, *arguments)[0]

    def slope(logs: np.ndarray) -> np.ndarray:
        return module._negative_log_posterior(logs, *arguments)[1]

    for logs in ([-0.5, 0.3, -1.0, 0.5, 0.1, -2.0], [0.5, -1.0, 0.2, -3.0, -0.4, -4.0]):
        assert check_grad(value, slope, np.array(logs)) < 1e-4


def test_a_noiseless_function_is_interpolated_and_found_between() -> None:
    model = GaussianProcess.fit(data(40))
    x = np.random.default_rng(9).random((50, 2))
    mean, sd = model.predict(x)
    error = np.abs(mean - np.sin(5 * x[:, 0]))
    assert error.max() < 0.05
    assert (error < 4 * sd + 0.01).all()


def test_a_knob_that_does_nothing_gets_a_long_length() -> None:
    parameters = GaussianProcess.fit(data(40)).parameters
    assert parameters.lengths[1] > 3 * parameters.lengths[0]


def test_what_adds_up_is_known_in_a_corner_where_nothing_was_seen() -> None:
    """Each knob was moved, never both far: their effects add up there all the same."""
    rng = np.random.default_rng(2)
    x = rng.random((60, 2))
    x = x[x.sum(axis=1) < 1.1]
    corner = np.array([[1.0, 1.0]])

    def function(rows: np.ndarray) -> np.ndarray:
        return 2.0 * rows[:, 0] - rows[:, 1] ** 2

    model = GaussianProcess.fit(Data(x, function(x), np.zeros(len(x)), np.array([False, False])))
    assert model.predict(corner)[0] == pytest.approx(function(corner), abs=0.1)


def test_a_process_that_is_certain_passes_through_each_function() -> None:
    model = GaussianProcess.fit(data(12, noise=0.3))
    x = np.random.default_rng(5).random((4, 2))
    values = np.random.default_rng(6).normal(size=(4, 3))
    certain = model.condition_on(x, values)
    mean, sd = certain.predict(x)
    assert mean == pytest.approx(values, abs=0.02)
    assert (sd < 0.2 * model.noise_sd).all()
    more = np.array([[0.4, 0.4]])
    grown = certain.fantasize(more)
    assert grown.predict(x)[0] == pytest.approx(mean, abs=1e-6)
    assert grown.predict(more)[1] < 0.2 * model.noise_sd


def test_the_scatter_of_repeats_is_the_noise() -> None:
    sample = data(8)
    repeats = np.repeat(sample.x, 8, axis=0)
    rng = np.random.default_rng(1)
    y = np.repeat(sample.y, 8) + 0.2 * rng.standard_normal(64)
    model = GaussianProcess.fit(Data(repeats, y, np.zeros(64), sample.unordered))
    assert model.noise_sd == pytest.approx(0.2, rel=0.25)


def test_known_noise_is_trusted_less() -> None:
    sample = data(20)
    y = sample.y.copy()
    y[3] += 3.0
    extra = np.zeros(20)
    extra[3] = 9.0
    model = GaussianProcess.fit(Data(sample.x, y, extra, sample.unordered))
    (mean,), _ = model.predict(sample.x[3:4])
    assert mean == pytest.approx(sample.y[3], abs=0.3)


def test_a_repeat_narrows_by_the_law_of_normal_variables() -> None:
    parameters = Hyperparameters(np.array([0.5]), np.array([0.25]), signal=1.0, noise=0.1)
    x = np.zeros((2, 1))
    once = GaussianProcess(
        Data(x[:1], np.ones(1), np.zeros(1), np.array([False])), parameters, (0, 1)
    )
    twice = GaussianProcess(Data(x, np.ones(2), np.zeros(2), np.array([False])), parameters, (0, 1))
    prior = 2.5  # signal and unknown mean, and the trend at an end: twice its variance
    assert once.predict(x[:1])[1] ** 2 == pytest.approx(1 / (1 / prior + 1 / 0.1), rel=1e-4)
    assert twice.predict(x[:1])[1] ** 2 == pytest.approx(1 / (1 / prior + 2 / 0.1), rel=1e-4)


def test_options_are_all_equally_far_apart() -> None:
    sample = Data(np.array([[0.0], [2.0]]), np.array([0.0, 1.0]), np.zeros(2), np.array([True]))
    parameters = Hyperparameters(np.array([1.0]), np.array([0.3]), 1.0, 0.01)
    model = GaussianProcess(sample, parameters, (0.0, 1.0))
    _, sd = model.predict(np.array([[1.0], [3.0]]))
    assert sd[0] == pytest.approx(sd[1], rel=1e-12)


def test_draws_have_the_predicted_mean_and_spread() -> None:
    model = GaussianProcess.fit(data(6, noise=0.1))
    x = np.array([[0.1, 0.2], [0.15, 0.2], [0.9, 0.9]])
    draws = model.sample(x, np.random.default_rng(0).standard_normal((20_000, 3)))
    mean, sd = model.predict(x)
    assert draws.mean(axis=0) == pytest.approx(mean, abs=0.02)
    assert draws.std(axis=0) == pytest.approx(sd, rel=0.03)


def test_a_process_that_believes_is_one_that_was_told() -> None:
    model = GaussianProcess.fit(data(10, noise=0.1))
    x = np.array([[0.5, 0.5], [0.1, 0.9]])
    believing = model.fantasize(x)
    told = GaussianProcess(believing.data, model.parameters, model.scale)
    at = np.random.default_rng(3).random((7, 2))
    for found, expected in zip(believing.predict(at), told.predict(at), strict=True):
        assert found == pytest.approx(expected, abs=1e-9)


def test_what_is_believed_moves_no_mean_and_narrows() -> None:
    model = GaussianProcess.fit(data(10, noise=0.1))
    x = np.array([[0.5, 0.5]])
    before, after = model.predict(x), model.fantasize(x).predict(x)
    assert after[0] == pytest.approx(before[0], abs=1e-6)
    assert after[1] < before[1]


def test_one_value_everywhere_is_no_error() -> None:
    sample = data(5)
    model = GaussianProcess.fit(Data(sample.x, np.full(5, 7.0), np.zeros(5), sample.unordered))
    assert model.predict(sample.x)[0] == pytest.approx(np.full(5, 7.0))
