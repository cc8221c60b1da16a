"""Gaussian-process regression: Matern-5/2, a length scale per knob, MAP hyperparameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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
_TREND = (math.log(0.1), 1.5)
_SIGNAL = (0.0, 1.0)
_NOISE = (math.log(1e-2), 1.5)
_BOUNDS_LENGTH = (math.log(0.03), math.log(30.0))
_BOUNDS_TREND = (math.log(1e-3), math.log(50.0))
_NO_TREND = (_BOUNDS_TREND[0], _BOUNDS_TREND[0])
_BOUNDS_SIGNAL = (math.log(0.02), math.log(50.0))
_BOUNDS_NOISE = (math.log(1e-5), math.log(1.0))
_ITERATIONS = 40
# A process that is to be certain keeps a share of the noise, or near rows could not be solved for.
_NEARLY_NONE = 1e-2
_LEAST_NOISE = 1e-6
_ENOUGH = 2e-5  # of the log posterior: a few thousandths, which no proposal depends on


@dataclass(frozen=True, slots=True, eq=False)
class Hyperparameters:
    """Of one process, on standardised data.

    Attributes:
        lengths: a length scale per knob.
        trends: the variance of what each knob does by itself.
        signal: the variance of what they do together.
        noise: the variance of one observation around the function.
    """

    lengths: Floats
    trends: Floats
    signal: float
    noise: float


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Rows of coordinates with a value each; `extra_variances` is noise known beforehand.

    `y` may have columns: then as many functions share the rows.
    """

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
        self._places = _Places.of(data.x, data, parameters)
        self._factor, self._weights = solved or self._solved()

    @classmethod
    def fitted(cls, data: Data, *, adds_up: bool = True) -> Gaussian:
        """Standardise the data and find the hyperparameters of the greatest posterior density.

        Of labels, which jump, what single knobs do does not add up.
        """
        centre = float(np.median(data.y))
        spread = float(np.std(data.y)) or 1.0
        y, extra = (data.y - centre) / spread, data.extra_variances / spread**2
        parameters = _fit(data, y, extra, _BOUNDS_TREND if adds_up else _NO_TREND)
        return cls(data, parameters, (centre, spread))

    @property
    def noise_sd(self) -> float:
        """Standard deviation of one observation around the function."""
        return math.sqrt(self.parameters.noise) * self.scale[1]

    def certain_at(self, x: Floats, values: Floats) -> Gaussian:
        """Return the process had it been told these values at rows of `x`, all but without noise.

        `values` may have columns, one for each function.
        """
        noise = max(_NEARLY_NONE * self.parameters.noise, _LEAST_NOISE)
        data = Data(x, values, np.zeros(len(x)), self.data.unordered)
        return Gaussian(data, replace(self.parameters, noise=noise), self.scale)

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the function, without noise, at rows of `x`.

        The mean has a column for each function.
        """
        centre, spread = self.scale
        at = _Places.of(x, self.data, self.parameters)
        cross = at.covariance(self._places, self.parameters)
        mean = cross @ self._weights
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        prior = self.parameters.signal + _MEAN_VARIANCE + at.trend.norms
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
        weights = np.concatenate([self._weights, np.zeros((more, *self._weights.shape[1:]))])
        return Gaussian(data, self.parameters, self.scale, (factor, weights))

    def _cross(self, x: Floats) -> Floats:
        at = _Places.of(x, self.data, self.parameters)
        return at.covariance(self._places, self.parameters)

    def _own(self, x: Floats) -> Floats:
        """Return the covariance of the function at rows of `x` before any data."""
        own = Data(x, x[:, 0], x[:, 0], self.data.unordered)  # has all of their options
        at = _Places.of(x, own, self.parameters)
        return at.covariance(at, self.parameters)

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


@dataclass(frozen=True, slots=True, eq=False)
class _Trend:
    """Rows of what each knob does by itself: a parabola, or a level for each option.

    Their products are the covariance of a sum of such functions. It is known everywhere once each
    knob has been moved, where the rest is known only near what was seen: what knobs do to the log
    of a metric mostly adds up (additive kernels, Duvenaud, Nickisch and Rasmussen 2011).
    """

    rows: Floats
    norms: Floats  # squared, an option without a column counts as well

    @classmethod
    def of(cls, x: Floats, data: Data, trends: Floats) -> _Trend:
        """Return the rows of `x`; the columns for options are those that `data` has."""
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
    """Rows as both parts of the covariance see them."""

    embedded: _Embedded
    trend: _Trend

    @classmethod
    def of(cls, x: Floats, data: Data, parameters: Hyperparameters) -> _Places:
        """Return the places of `x`; options have the columns that `data` has."""
        embedded = _Embedded.of(x, data, parameters.lengths)
        return cls(embedded, _Trend.of(x, data, parameters.trends))

    def covariance(self, other: _Places, parameters: Hyperparameters) -> Floats:
        """Return that of the function before any data: these rows, the other's columns."""
        found = _matern(self.embedded.squared_distances(other.embedded), parameters)
        found += self.trend.rows @ other.trend.rows.T
        found += _MEAN_VARIANCE
        return found


def _parabola(x: Floats) -> Floats:
    """Return the two Legendre polynomials of a parabola without its mean, of rows of [0, 1]."""
    u = 2.0 * x - 1.0
    return np.column_stack([u, 0.5 * (3.0 * u**2 - 1.0)])


def _matern(squared: Floats, parameters: Hyperparameters) -> Floats:
    root = np.sqrt(5.0 * squared)
    decay = np.exp(-root)
    root += 1.0
    root += (5.0 / 3.0) * squared
    root *= decay
    root *= parameters.signal
    return root


def _fit(
    data: Data, y: Floats, extra: Floats, trend_bounds: tuple[float, float]
) -> Hyperparameters:
    knobs = data.x.shape[1]
    pairs = _Pairs(data)
    priors = [_LENGTH] * knobs + [_TREND] * knobs + [_SIGNAL, _NOISE]
    means, sds = np.array(priors).T
    bounds = [_BOUNDS_LENGTH] * knobs + [trend_bounds] * knobs + [_BOUNDS_SIGNAL, _BOUNDS_NOISE]
    found = minimize(
        _negative_log_posterior,
        np.clip(means, *np.array(bounds).T),
        args=(pairs, y, extra, means, sds),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _ITERATIONS, "ftol": _ENOUGH},
    )
    values = np.exp(found.x)
    lengths, trends = values[:knobs], values[knobs : 2 * knobs]
    return Hyperparameters(lengths, trends, float(values[-2]), float(values[-1]))


class _Pairs:
    """Each pair of different rows once: where it stands below the diagonal, and how far apart.

    `trends` holds the products of what each knob does by itself, `own_trends` each row's squares.
    """

    def __init__(self, data: Data) -> None:
        self.rows, self.columns = np.tril_indices(len(data.x), -1)
        difference = (data.x[self.rows] - data.x[self.columns]).T
        self.squared: Floats = difference**2  # knobs, pairs
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
    """Return it with its gradient; `logs` holds the logs of the hyperparameters."""
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
