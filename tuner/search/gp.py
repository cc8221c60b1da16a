"""Gaussian process regression: Matérn 5/2 plus additive trends, MAP hyperparameters.

Notation, with shapes:

    symbol   name in the code       shape    meaning
    N        len(data.x)                     points the process is conditioned on
    Q        len(x)                          points asked about
    D                                        knobs
    F                                        functions that share the points (columns of y)
    X        data.x                 (N, D)   coordinates: 0 to 1, or the index of an option
    y        data.y                 (N,)     values; (N, F) for several functions
    l        parameters.lengths     (D,)     length scales
    v        parameters.trends      (D,)     variances of the additive trends
    s        parameters.signal               variance of the Matérn part
    n        parameters.noise                variance of one observation
    K        covariance             (N, N)   prior covariance of X with X, noise on the diagonal
    L        _factor                (N, N)   lower Cholesky factor of K
    w        _weights               (N,)     K^-1 y, standardised; (N, F) for several functions
    k(x, X)  cross                  (Q, N)   prior covariance of x with X

The posterior at x has mean k(x, X) w and covariance k(x, x) - k(x, X) K^-1 k(X, x) (Rasmussen and
Williams 2006, section 2.2). y is standardised before and scaled back after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

from tuner.search.space import Flags, Floats

_MEAN_VARIANCE = 1.0  # of the unknown constant mean, in units of the data's variance
_JITTER = 1e-8
# Log-normal priors in units of the cube and of the standardised data: (mean, standard deviation).
_LENGTH = (math.log(0.8), 0.8)
_TREND = (math.log(0.1), 1.5)
_SIGNAL = (0.0, 1.0)
_NOISE = (math.log(1e-2), 1.5)
_BOUNDS_LENGTH = (math.log(0.03), math.log(30.0))
_BOUNDS_TREND = (math.log(1e-3), math.log(50.0))
_BOUNDS_SIGNAL = (math.log(0.02), math.log(50.0))
_BOUNDS_NOISE = (math.log(1e-5), math.log(1.0))
_ITERATIONS = 40
# Given exact values, a process keeps a share of the noise: else near rows make K singular.
_EXACT_NOISE_SHARE = 1e-2
_LEAST_NOISE = 1e-6
_FTOL = 2e-5  # of the log posterior: a few thousandths, which no proposal depends on


@dataclass(frozen=True, slots=True, eq=False)
class Hyperparameters:
    """Of one process, on standardised data.

    Attributes:
        lengths: a length scale per knob, shape (D,).
        trends: the variance of what each knob does by itself, shape (D,).
        signal: the variance of what they do together.
        noise: the variance of one observation around the function.
    """

    lengths: Floats
    trends: Floats
    signal: float
    noise: float


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Points with a value each.

    Attributes:
        x: coordinates, shape (N, D).
        y: values, shape (N,); (N, F) where F functions share the points.
        extra_variances: noise known beforehand, beside that which is fitted, shape (N,).
        unordered: which knobs have options rather than numbers, shape (D,).
    """

    x: Floats
    y: Floats
    extra_variances: Floats
    unordered: Flags


class GaussianProcess:
    """A Gaussian process conditioned on data; values in the data's own units."""

    def __init__(
        self,
        data: Data,
        parameters: Hyperparameters,
        scale: tuple[float, float],
        solved: tuple[Floats, Floats] | None = None,
    ) -> None:
        """Condition on data; `scale`: y's centre and spread, `solved`: factor, weights if known."""
        self.data = data
        self.parameters = parameters
        self.scale = scale
        self._places = _Places.of(data.x, data, parameters)
        self._factor, self._weights = solved or self._solved()

    @classmethod
    def fit(cls, data: Data) -> GaussianProcess:
        """Standardise y (N,) and find the hyperparameters of the greatest posterior density."""
        centre = float(np.median(data.y))
        spread = float(np.std(data.y)) or 1.0
        y, extra = (data.y - centre) / spread, data.extra_variances / spread**2
        parameters = _fit(data, y, extra)
        return cls(data, parameters, (centre, spread))

    @property
    def noise_sd(self) -> float:
        """Standard deviation of one observation around the function."""
        return math.sqrt(self.parameters.noise) * self.scale[1]

    def solve(self, y: Floats) -> Floats:
        """Return K^-1 y, shape (N,) or (N, F) as y."""
        return cho_solve((self._factor, True), y)

    def condition_on(self, x: Floats, values: Floats) -> GaussianProcess:
        """Return the process given exact values at rows of `x` (N, D) instead of its data.

        `values` has shape (N,), or (N, F) for F functions.
        """
        noise = max(_EXACT_NOISE_SHARE * self.parameters.noise, _LEAST_NOISE)
        data = Data(x, values, np.zeros(len(x)), self.data.unordered)
        return GaussianProcess(data, replace(self.parameters, noise=noise), self.scale)

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the function, without noise, at rows of `x` (Q, D).

        The mean has shape (Q,), or (Q, F) for F functions; the standard deviation (Q,).
        """
        centre, spread = self.scale
        at = _Places.of(x, self.data, self.parameters)
        cross = at.covariance(self._places, self.parameters)
        mean = cross @ self._weights
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        prior = self.parameters.signal + _MEAN_VARIANCE + at.trend.norms
        variance = np.maximum(prior - np.einsum("ij,ij->j", half, half), 1e-10)
        return centre + spread * mean, spread * np.sqrt(variance)

    def joint(self, x: Floats) -> tuple[Floats, Floats]:
        """Return mean (Q,) and covariance (Q, Q) of the function at rows of `x` (Q, D)."""
        centre, spread = self.scale
        cross = self._cross(x)
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        covariance: Floats = self._own(x) - half.T @ half
        return centre + spread * (cross @ self._weights), spread**2 * covariance

    def sample(self, x: Floats, normals: Floats) -> Floats:
        """Return joint samples of the function at rows of `x` (Q, D), shape (samples, Q).

        `normals` holds independent standard normal deviates, shape (samples, Q).
        """
        mean, covariance = self.joint(x)
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        samples: Floats = mean + normals @ root.T
        return samples

    def fantasize(self, x: Floats) -> GaussianProcess:
        """Return the process had pending points `x` (Q, D) turned out at its own means.

        That moves no mean, so the new weights are 0, and the factor grows by Q rows.
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
        weights = np.concatenate([self._weights, np.zeros((more, *self._weights.shape[1:]))])
        return GaussianProcess(data, self.parameters, self.scale, (factor, weights))

    def _cross(self, x: Floats) -> Floats:
        """Return the prior covariance of rows of `x` (Q, D) with the data, shape (Q, N)."""
        at = _Places.of(x, self.data, self.parameters)
        return at.covariance(self._places, self.parameters)

    def _own(self, x: Floats) -> Floats:
        """Return the prior covariance of rows of `x` (Q, D) with each other, shape (Q, Q)."""
        own = Data(x, x[:, 0], x[:, 0], self.data.unordered)  # has all of their options
        at = _Places.of(x, own, self.parameters)
        return at.covariance(at, self.parameters)

    def _solved(self) -> tuple[Floats, Floats]:
        """Return the Cholesky factor (N, N) and the weights."""
        centre, spread = self.scale
        covariance = self._own(self.data.x)
        noise = self.parameters.noise + self.data.extra_variances / spread**2
        covariance[np.diag_indices_from(covariance)] += noise + _JITTER
        factor = cholesky(covariance, lower=True)
        return factor, cho_solve((factor, True), (self.data.y - centre) / spread)


@dataclass(frozen=True, slots=True, eq=False)
class _Embedded:
    """Points in units of the length scales, with a column for each option of an unordered knob.

    An option is as far from every other as the ends of an ordered knob are from each other, one
    without a column too.

    Attributes:
        rows: shape (Q, columns).
        norms: squared, with what lies in no column, shape (Q,).
    """

    rows: Floats
    norms: Floats

    @classmethod
    def of(cls, x: Floats, data: Data, lengths: Floats) -> _Embedded:
        """Embed rows of `x` (Q, D); the columns are those of the options that `data` has."""
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
        """Return the squared distance of each pair, shape (Q, other Q)."""
        squared: Floats = -2.0 * (self.rows @ other.rows.T)
        squared += self.norms[:, None]
        squared += other.norms[None, :]
        return np.maximum(squared, 0.0, out=squared)


@dataclass(frozen=True, slots=True, eq=False)
class _Trend:
    """Features of what each knob does by itself: a parabola, or a level for each option.

    Their products are the covariance of a sum of such functions. It is known everywhere once each
    knob has been moved, where the rest is known only near what was seen: what knobs do to the log
    of a metric mostly adds up (additive kernels, Duvenaud, Nickisch and Rasmussen 2011).

    Attributes:
        rows: shape (Q, columns).
        norms: squared; an option without a column counts as well, shape (Q,).
    """

    rows: Floats
    norms: Floats

    @classmethod
    def of(cls, x: Floats, data: Data, trends: Floats) -> _Trend:
        """Return the features of `x` (Q, D); the columns for options are those that `data` has."""
        columns, norms = [], np.zeros(len(x))
        for k, is_unordered in enumerate(data.unordered):
            if is_unordered:
                options = np.arange(data.x[:, k].max(initial=0.0) + 1.0)
                part = (x[:, k, None] == options).astype(np.float64)
                norms += trends[k]
            else:
                part = _parabola(x[:, k])
                norms += trends[k] * np.einsum("ij,ij->i", part, part)
            columns.append(math.sqrt(trends[k]) * part)
        return cls(np.concatenate(columns, axis=1), norms)


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Points as both parts of the covariance see them."""

    embedded: _Embedded
    trend: _Trend

    @classmethod
    def of(cls, x: Floats, data: Data, parameters: Hyperparameters) -> _Places:
        """Return the places of `x` (Q, D); options have the columns that `data` has."""
        embedded = _Embedded.of(x, data, parameters.lengths)
        return cls(embedded, _Trend.of(x, data, parameters.trends))

    def covariance(self, other: _Places, parameters: Hyperparameters) -> Floats:
        """Return the prior covariance of each pair, shape (Q, other Q)."""
        covariance = _matern(self.embedded.squared_distances(other.embedded), parameters)
        covariance += self.trend.rows @ other.trend.rows.T
        covariance += _MEAN_VARIANCE
        return covariance


def _parabola(x: Floats) -> Floats:
    """Return the first and second Legendre polynomial of `x` (Q,) in [0, 1], shape (Q, 2)."""
    u = 2.0 * x - 1.0
    return np.column_stack([u, 0.5 * (3.0 * u**2 - 1.0)])


def _matern(squared: Floats, parameters: Hyperparameters) -> Floats:
    """Return the Matérn 5/2 covariance at squared distances, of any shape."""
    root = np.sqrt(5.0 * squared)
    decay = np.exp(-root)
    root += 1.0
    root += (5.0 / 3.0) * squared
    root *= decay
    root *= parameters.signal
    return root


def _fit(data: Data, y: Floats, extra: Floats) -> Hyperparameters:
    """Return the MAP hyperparameters; `y` and `extra` (N,) are standardised."""
    knobs = data.x.shape[1]
    pairs = _Pairs(data)
    priors = [_LENGTH] * knobs + [_TREND] * knobs + [_SIGNAL, _NOISE]
    means, sds = np.array(priors).T
    bounds = [_BOUNDS_LENGTH] * knobs + [_BOUNDS_TREND] * knobs + [_BOUNDS_SIGNAL, _BOUNDS_NOISE]
    optimum = minimize(
        _negative_log_posterior,
        np.clip(means, *np.array(bounds).T),
        args=(pairs, y, extra, means, sds),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _ITERATIONS, "ftol": _FTOL},
    )
    values = np.exp(optimum.x)
    lengths, trends = values[:knobs], values[knobs : 2 * knobs]
    return Hyperparameters(lengths, trends, float(values[-2]), float(values[-1]))


class _Pairs:
    """Each of the P = N (N - 1) / 2 pairs of different points once.

    Attributes:
        rows, columns: where a pair stands below the diagonal of K, shape (P,).
        squared: squared distance in each knob, shape (D, P).
        trends: products of the trend features of each knob, shape (D, P).
        own_trends: squares of each point's own trend features, shape (D, N).
    """

    def __init__(self, data: Data) -> None:
        self.rows, self.columns = np.tril_indices(len(data.x), -1)
        difference = (data.x[self.rows] - data.x[self.columns]).T
        self.squared: Floats = difference**2
        self.squared[data.unordered] = self.squared[data.unordered] != 0.0
        self.trends: Floats = np.empty_like(self.squared)
        self.own_trends: Floats = np.ones((data.x.shape[1], len(data.x)))
        for k, is_unordered in enumerate(data.unordered):
            if is_unordered:
                self.trends[k] = self.squared[k] == 0.0
                continue
            part = _parabola(data.x[:, k])
            self.trends[k] = np.einsum("ij,ij->i", part[self.rows], part[self.columns])
            self.own_trends[k] = np.einsum("ij,ij->i", part, part)


def _negative_log_posterior(
    logs: Floats, pairs: _Pairs, y: Floats, extra: Floats, means: Floats, sds: Floats
) -> tuple[float, Floats]:
    """Return the negative log posterior density and its gradient, shape (2 D + 2,).

    `logs`, `means` and `sds` (2 D + 2,) are of the log hyperparameters in the order lengths,
    trends, signal, noise; `y` and `extra` have shape (N,).
    """
    n, knobs = len(y), len(pairs.squared)
    inverse_squares, trends = np.exp(-2.0 * logs[:knobs]), np.exp(logs[knobs:-2])
    signal, noise = math.exp(logs[-2]), math.exp(logs[-1])
    squared = 5.0 * (inverse_squares @ pairs.squared)
    root = np.sqrt(squared)
    decay = signal * np.exp(-root)
    matern = (1.0 + root + squared / 3.0) * decay
    covariance = np.zeros((n, n))
    covariance[pairs.rows, pairs.columns] = matern + trends @ pairs.trends + _MEAN_VARIANCE
    variances = signal + trends @ pairs.own_trends + _MEAN_VARIANCE
    covariance[np.diag_indices(n)] = variances + noise + extra + _JITTER
    factor = cholesky(covariance, lower=True, check_finite=False)
    weights = cho_solve((factor, True), y, check_finite=False)
    inverse, _ = dpotri(factor, lower=1)
    outer = inverse[pairs.rows, pairs.columns] - weights[pairs.rows] * weights[pairs.columns]
    own = np.diag(inverse) - weights**2
    gradient = np.empty_like(logs)
    # each pair stands for two elements
    slope = outer * (5.0 / 3.0) * (1.0 + root) * decay
    gradient[:knobs] = inverse_squares * (pairs.squared @ slope)
    gradient[knobs:-2] = trends * (pairs.trends @ outer + 0.5 * (pairs.own_trends @ own))
    gradient[-2] = float(outer @ matern) + 0.5 * signal * float(own.sum())
    gradient[-1] = 0.5 * noise * float(own.sum())
    off = (logs - means) / sds
    value = 0.5 * float(y @ weights) + float(np.sum(np.log(np.diag(factor))))
    return value + 0.5 * float(off @ off), gradient + off / sds
