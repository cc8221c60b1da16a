from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from tuner.search.failures.loose_bounds import fit_loosely_bounded
from tuner.search.gp import Data, GaussianProcess
from tuner.search.space import Floats

ORDERED = np.array([False])


def data_of(x: list[float], y: list[float]) -> Data:
    return Data(np.array(x)[:, None], np.array(y), np.zeros(len(x)), ORDERED)


def without_bounds(model: GaussianProcess, data: Data) -> GaussianProcess:
    """Return the process with the same hyperparameters, of the values alone."""
    return GaussianProcess(data, model.parameters, model.scale)


def weighted(prior: GaussianProcess, x: Floats, bounds: Floats) -> tuple[Floats, Floats]:
    """Return the moments of the process given the bounds, by draws weighted by their likelihood."""
    normals = np.random.default_rng(0).standard_normal((200_000, len(x)))
    draws = prior.sample(x, normals)
    weights = ndtr((draws - bounds) / prior.noise_sd).prod(axis=1)
    weights /= weights.sum()
    mean = weights @ draws
    return mean, np.sqrt(weights @ (draws - mean) ** 2)


@pytest.mark.parametrize("bounds", [[0.3], [0.3, 0.2], [-0.5, 0.9, 0.4]])
def test_bounds_move_the_process_as_their_likelihood_does(bounds: list[float]) -> None:
    known_x, known_y = [0.0, 0.1, 0.2, 0.45], [0.05, -0.1, 0.1, 0.3]
    at = [0.6, 0.75, 0.95][: len(bounds)]
    data = data_of([*known_x, *at], [*known_y, *bounds])
    censored = np.arange(len(data.y)) >= len(known_x)
    model = fit_loosely_bounded(data, censored)
    x = data.x[censored]
    mean, sd = model.predict(x)
    true_mean, true_sd = weighted(
        without_bounds(model, data_of(known_x, known_y)), x, np.array(bounds)
    )
    assert mean == pytest.approx(true_mean, abs=0.15 * true_sd.max())
    assert sd == pytest.approx(true_sd, rel=0.15)


def test_a_bound_that_is_far_exceeded_says_nothing() -> None:
    known_x, known_y = [0.0, 0.3, 0.7, 1.0], [0.0, 0.3, 0.7, 1.0]
    data = data_of([*known_x, 0.5, 0.6], [*known_y, -30.0, -30.0])
    model = fit_loosely_bounded(data, np.array([False] * 4 + [True] * 2))
    x = np.linspace(0.0, 1.0, 7)[:, None]
    alone = without_bounds(model, data_of(known_x, known_y))
    for found, expected in zip(model.predict(x), alone.predict(x), strict=True):
        assert found == pytest.approx(expected, abs=1e-3)


def test_many_equal_bounds_are_no_plateau() -> None:
    """Values end at 0.4; what is only known to be above 0 may be far above it."""
    known_x = [0.0, 0.1, 0.25, 0.4]
    above = [0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]
    data = data_of([*known_x, *above], [x - 0.5 for x in known_x] + [0.0] * len(above))
    model = fit_loosely_bounded(data, np.arange(len(data.y)) >= len(known_x))
    mean, sd = model.predict(np.array([[0.5], [1.0]]))
    assert abs(mean[0]) < 2.0 * sd[0]
    assert mean[1] > sd[1]
    assert abs(mean[1] - 0.5) < 3.0 * sd[1]
