"""Gaussian-process regression: Matern-5/2, a length scale per knob, MAP hyperparameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from tuner.search.space import Floats

_SQRT5 = math.sqrt(5.0)
_MEAN_VARIANCE = 1.0  # of the unknown constant mean, in units of the data's variance
_JITTER = 1e-8
# Log-normal priors in units of the cube and of the standardised data: (mean, standard deviation).
_LENGTH = (math.log(0.8), 0.8)
_SIGNAL = (0.0, 1.0)
_NOISE = (math.log(1e-2), 1.5)
_BOUNDS_LENGTH = (math.log(0.03), math.log(30.0))
_BOUNDS_SIGNAL = (math.log(0.02), math.log(50.0))
_BOUNDS_NOISE = (math.log(1e-5), math.log(1.0))
_ITERATIONS = 40


@dataclass(frozen=True, slots=True, eq=False)
class Hyperparameters:
    """Of one process: a length scale per knob, signal and noise variance of standardised data."""

    lengths: Floats
    signal: float
    noise: float


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Rows of coordinates with a value each; `extra_variances` is noise known beforehand."""

    x: Floats
    y: Floats
    extra_variances: Floats
    unordered: np.ndarray[tuple[int], np.dtype[np.bool_]]


class Gaussian:
    """A process conditioned on data; values in the data's own units."""

    def __init__(self, data: Data, parameters: Hyperparameters, scale: tuple[float, float]) -> None:
        self.data = data
        self.parameters = parameters
        self.scale = scale
        centre, spread = scale
        covariance = _matern(_scaled(data, data.x, parameters), parameters) + _MEAN_VARIANCE
        noise = parameters.noise + data.extra_variances / spread**2
        covariance[np.diag_indices_from(covariance)] += noise + _JITTER
        self._factor = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._factor, True), (data.y - centre) / spread)

    @classmethod
    def fitted(cls, data: Data) -> Gaussian:
        """Standardise the data and find the hyperparameters of the greatest posterior density."""
        centre = float(np.median(data.y))
        spread = float(np.std(data.y)) or 1.0
        parameters = _fit(data, (data.y - centre) / spread, data.extra_variances / spread**2)
        return cls(data, parameters, (centre, spread))

    @property
    def noise_sd(self) -> float:
        """Standard deviation of one observation around the function."""
        return math.sqrt(self.parameters.noise) * self.scale[1]

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the function, without noise, at rows of `x`."""
        centre, spread = self.scale
        cross = self._cross(x)
        mean = cross @ self._weights
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        prior = self.parameters.signal + _MEAN_VARIANCE
        variance = np.maximum(prior - np.einsum("ij,ij->j", half, half), 1e-10)
        return centre + spread * mean, spread * np.sqrt(variance)

    def sample(self, x: Floats, normals: Floats) -> Floats:
        """Return joint draws of the function at rows of `x`, one per row of `normals`."""
        centre, spread = self.scale
        cross = self._cross(x)
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        own = _matern(_scaled(self.data, x, self.parameters, x), self.parameters) + _MEAN_VARIANCE
        covariance = own - half.T @ half
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        drawn: Floats = centre + spread * (cross @ self._weights + normals @ root.T)
        return drawn

    def with_believed(self, x: Floats) -> Gaussian:
        """Return the process had it been told its own means at `x`, where evaluations are open."""
        mean, _ = self.predict(x)
        data = Data(
            np.concatenate([self.data.x, x]),
            np.concatenate([self.data.y, mean]),
            np.concatenate([self.data.extra_variances, np.zeros(len(x))]),
            self.data.unordered,
        )
        return Gaussian(data, self.parameters, self.scale)

    def _cross(self, x: Floats) -> Floats:
        squared = _scaled(self.data, x, self.parameters, self.data.x)
        return _matern(squared, self.parameters) + _MEAN_VARIANCE


def _distances(data: Data, a: Floats, b: Floats) -> Floats:
    """Return the squared distance of each pair in each knob: knobs, rows of a, rows of b."""
    difference = a.T[:, :, None] - b.T[:, None, :]
    squared: Floats = difference**2
    squared[data.unordered] = squared[data.unordered] != 0.0
    return squared


def _scaled(data: Data, a: Floats, parameters: Hyperparameters, b: Floats | None = None) -> Floats:
    """Return squared distances in units of the length scales."""
    b = a if b is None else b
    total = np.zeros((len(a), len(b)))
    for k, length in enumerate(parameters.lengths):
        if data.unordered[k]:
            total += (a[:, k, None] != b[None, :, k]) / length**2
        else:
            total += ((a[:, k, None] - b[None, :, k]) / length) ** 2
    return total


def _matern(squared: Floats, parameters: Hyperparameters) -> Floats:
    root = np.sqrt(5.0 * squared)
    result: Floats = parameters.signal * (1.0 + root + root**2 / 3.0) * np.exp(-root)
    return result


def _fit(data: Data, y: Floats, extra: Floats) -> Hyperparameters:
    knobs = data.x.shape[1]
    distances = _distances(data, data.x, data.x).reshape(knobs, -1)
    means = np.array([_LENGTH[0]] * knobs + [_SIGNAL[0], _NOISE[0]])
    sds = np.array([_LENGTH[1]] * knobs + [_SIGNAL[1], _NOISE[1]])
    bounds = [_BOUNDS_LENGTH] * knobs + [_BOUNDS_SIGNAL, _BOUNDS_NOISE]
    found = minimize(
        _negative_log_posterior,
        means,
        args=(distances, y, extra, means, sds),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _ITERATIONS, "ftol": 1e-6},
    )
    values = np.exp(found.x)
    return Hyperparameters(values[:knobs], float(values[-2]), float(values[-1]))


def _negative_log_posterior(
    logs: Floats, distances: Floats, y: Floats, extra: Floats, means: Floats, sds: Floats
) -> tuple[float, Floats]:
    """Return it with its gradient; `logs` holds the logs of the hyperparameters."""
    n = len(y)
    inverse_squares = np.exp(-2.0 * logs[:-2])
    signal, noise = math.exp(logs[-2]), math.exp(logs[-1])
    root = np.sqrt(5.0 * (inverse_squares @ distances).reshape(n, n))
    decay = np.exp(-root)
    matern = signal * (1.0 + root + root**2 / 3.0) * decay
    covariance = matern + _MEAN_VARIANCE
    covariance[np.diag_indices(n)] += noise + extra + _JITTER
    factor = cholesky(covariance, lower=True, check_finite=False)
    inverse = cho_solve((factor, True), np.eye(n), check_finite=False)
    weights = inverse @ y
    outer = inverse - np.outer(weights, weights)
    slope = outer * (5.0 / 3.0) * signal * (1.0 + root) * decay
    gradient = np.empty_like(logs)
    gradient[:-2] = 0.5 * inverse_squares * (distances @ slope.ravel())
    gradient[-2] = 0.5 * float(np.sum(outer * matern))
    gradient[-1] = 0.5 * noise * float(np.trace(outer))
    off = (logs - means) / sds
    value = 0.5 * float(y @ weights) + float(np.sum(np.log(np.diag(factor))))
    return value + 0.5 * float(off @ off), gradient + off / sds
