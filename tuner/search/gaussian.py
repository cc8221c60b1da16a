"""Gaussian-process regression: Matern-5/2, a length scale per knob, MAP hyperparameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
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
_ENOUGH = 2e-5  # of the log posterior: a few thousandths, which no proposal depends on


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

    def __init__(
        self,
        data: Data,
        parameters: Hyperparameters,
        scale: tuple[float, float],
        solved: tuple[Floats, Floats] | None = None,
    ) -> None:
        """`solved` is the covariance's Cholesky factor and the weights, where they are known."""
        self.data = data
        self.parameters = parameters
        self.scale = scale
        self._embedded = _Embedded.of(data.x, data, parameters.lengths)
        self._factor, self._weights = solved or self._solved()

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
        covariance = self._own(x) - half.T @ half
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        drawn: Floats = centre + spread * (cross @ self._weights + normals @ root.T)
        return drawn

    def with_believed(self, x: Floats) -> Gaussian:
        """Return the process had it been told its own means at `x`, where evaluations are open.

        That moves no mean, so the weights of the new rows are 0, and the factor grows by them.
        """
        centre, spread = self.scale
        cross = self._cross(x)
        mean = centre + spread * (cross @ self._weights)
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        own = self._own(x) - half.T @ half
        own[np.diag_indices_from(own)] += self.parameters.noise + _JITTER
        n, more = len(half), len(x)
        factor = np.zeros((n + more, n + more))
        factor[:n, :n], factor[n:, :n] = self._factor, half.T
        factor[n:, n:] = cholesky(own, lower=True)
        data = Data(
            np.concatenate([self.data.x, x]),
            np.concatenate([self.data.y, mean]),
            np.concatenate([self.data.extra_variances, np.zeros(more)]),
            self.data.unordered,
        )
        weights = np.concatenate([self._weights, np.zeros(more)])
        return Gaussian(data, self.parameters, self.scale, (factor, weights))

    def _cross(self, x: Floats) -> Floats:
        at = _Embedded.of(x, self.data, self.parameters.lengths)
        squared = at.squared_distances(self._embedded)
        return _matern(squared, self.parameters) + _MEAN_VARIANCE

    def _own(self, x: Floats) -> Floats:
        """Return the covariance of the function at rows of `x` before any data."""
        own = Data(x, x[:, 0], x[:, 0], self.data.unordered)  # has all of their options
        at = _Embedded.of(x, own, self.parameters.lengths)
        return _matern(at.squared_distances(at), self.parameters) + _MEAN_VARIANCE

    def _solved(self) -> tuple[Floats, Floats]:
        centre, spread = self.scale
        covariance = self._own(self.data.x)
        noise = self.parameters.noise + self.data.extra_variances / spread**2
        covariance[np.diag_indices_from(covariance)] += noise + _JITTER
        factor = cholesky(covariance, lower=True)
        return factor, cho_solve((factor, True), (self.data.y - centre) / spread)


@dataclass(frozen=True, slots=True, eq=False)
class _Embedded:
    """Rows in units of the length scales, with a column for each option of an unordered knob.

    An option is as far from every other as the ends of an ordered knob are from each other, one
    without a column too.
    """

    rows: Floats
    norms: Floats  # squared, with what lies in no column

    @classmethod
    def of(cls, x: Floats, data: Data, lengths: Floats) -> _Embedded:
        """Embed `x`; the columns are those of the options that `data` has."""
        ordered = ~data.unordered
        columns = [x[:, ordered] / lengths[ordered]]
        norms = np.einsum("ij,ij->i", columns[0], columns[0])
        for k in np.flatnonzero(data.unordered):
            half = 0.5 / lengths[k] ** 2
            options = np.arange(data.x[:, k].max(initial=0.0) + 1.0)
            columns.append(math.sqrt(half) * (x[:, k, None] == options))
            norms += half
        return cls(np.concatenate(columns, axis=1), norms)

    def squared_distances(self, other: _Embedded) -> Floats:
        """Return that of each pair: these rows, the other's columns."""
        squared: Floats = -2.0 * (self.rows @ other.rows.T)
        squared += self.norms[:, None]
        squared += other.norms[None, :]
        return np.maximum(squared, 0.0, out=squared)


def _matern(squared: Floats, parameters: Hyperparameters) -> Floats:
    root = np.sqrt(5.0 * squared)
    decay = np.exp(-root)
    root += 1.0
    root += (5.0 / 3.0) * squared
    root *= decay
    root *= parameters.signal
    return root


def _fit(data: Data, y: Floats, extra: Floats) -> Hyperparameters:
    knobs = data.x.shape[1]
    pairs = _Pairs(data)
    means = np.array([_LENGTH[0]] * knobs + [_SIGNAL[0], _NOISE[0]])
    sds = np.array([_LENGTH[1]] * knobs + [_SIGNAL[1], _NOISE[1]])
    bounds = [_BOUNDS_LENGTH] * knobs + [_BOUNDS_SIGNAL, _BOUNDS_NOISE]
    found = minimize(
        _negative_log_posterior,
        means,
        args=(pairs, y, extra, means, sds),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _ITERATIONS, "ftol": _ENOUGH},
    )
    values = np.exp(found.x)
    return Hyperparameters(values[:knobs], float(values[-2]), float(values[-1]))


class _Pairs:
    """Each pair of different rows once: where it stands below the diagonal, and how far apart."""

    def __init__(self, data: Data) -> None:
        self.rows, self.columns = np.tril_indices(len(data.x), -1)
        difference = (data.x[self.rows] - data.x[self.columns]).T
        self.squared: Floats = difference**2  # knobs, pairs
        self.squared[data.unordered] = self.squared[data.unordered] != 0.0


def _negative_log_posterior(
    logs: Floats, pairs: _Pairs, y: Floats, extra: Floats, means: Floats, sds: Floats
) -> tuple[float, Floats]:
    """Return it with its gradient; `logs` holds the logs of the hyperparameters."""
    n = len(y)
    inverse_squares = np.exp(-2.0 * logs[:-2])
    signal, noise = math.exp(logs[-2]), math.exp(logs[-1])
    squared = 5.0 * (inverse_squares @ pairs.squared)
    root = np.sqrt(squared)
    decay = signal * np.exp(-root)
    matern = (1.0 + root + squared / 3.0) * decay
    covariance = np.zeros((n, n))
    covariance[pairs.rows, pairs.columns] = matern + _MEAN_VARIANCE
    covariance[np.diag_indices(n)] = signal + _MEAN_VARIANCE + noise + extra + _JITTER
    factor = cholesky(covariance, lower=True, check_finite=False)
    weights = cho_solve((factor, True), y, check_finite=False)
    inverse, _ = dpotri(factor, lower=1)
    outer = inverse[pairs.rows, pairs.columns] - weights[pairs.rows] * weights[pairs.columns]
    own = np.diag(inverse) - weights**2
    gradient = np.empty_like(logs)
    # each pair stands for two elements
    slope = outer * (5.0 / 3.0) * (1.0 + root) * decay
    gradient[:-2] = inverse_squares * (pairs.squared @ slope)
    gradient[-2] = float(outer @ matern) + 0.5 * signal * float(own.sum())
    gradient[-1] = 0.5 * noise * float(own.sum())
    off = (logs - means) / sds
    value = 0.5 * float(y @ weights) + float(np.sum(np.log(np.diag(factor))))
    return value + 0.5 * float(off @ off), gradient + off / sds
