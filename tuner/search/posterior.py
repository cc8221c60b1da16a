"""Posterior: a Gaussian process for each objective and constraint, fitted to the observations.

N is the number of points, D that of knobs, M that of objectives, C that of constraints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr

from tuner.search.failures.feasibility import Feasibility
from tuner.search.gp import Data, GaussianProcess
from tuner.search.observation import Observation
from tuner.search.space import Flags, Floats, Point, Space

_CENSORING_ROUNDS = 2


@dataclass(frozen=True, slots=True, eq=False)
class ConstraintPosterior:
    """What the models say of the constraints at N points.

    Attributes:
        violation_means: of the bilog violations, shape (N, C).
        violation_sds: their standard deviations, shape (N, C).
        log_works: log probability that a point works at all, shape (N,).
    """

    violation_means: Floats
    violation_sds: Floats
    log_works: Floats

    def log_feasible(self, margin: float = 0.0) -> Floats:
        """Return the log probability of working and meeting every constraint, shape (N,)."""
        terms = log_ndtr((-margin - self.violation_means) / self.violation_sds)
        result: Floats = self.log_works + terms.sum(axis=1)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Posterior(ConstraintPosterior):
    """The same with mean and standard deviation of the objectives, both (N, M)."""

    objective_means: Floats
    objective_sds: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """Processes over one space.

    Attributes:
        space: the search space.
        objectives: one process per objective.
        violations: one process per constraint, of its bilog violation.
        works: the probability that a point works at all.
        std_scale: factor on every standard deviation of the processes.
    """

    space: Space
    objectives: tuple[GaussianProcess, ...]
    violations: tuple[GaussianProcess, ...]
    works: Feasibility
    std_scale: float = 1.0

    def posterior(self, x: Floats) -> Posterior:
        """Return the posterior at rows of coordinates (N, D)."""
        constraints = self.constraint_posterior(x)
        return Posterior(
            constraints.violation_means,
            constraints.violation_sds,
            constraints.log_works,
            *self._predict(self.objectives, x),
        )

    def constraint_posterior(self, x: Floats) -> ConstraintPosterior:
        """Return the same without the objectives."""
        return ConstraintPosterior(
            *self._predict(self.violations, x), self.works.log_probability(x)
        )

    def _predict(self, models: Sequence[GaussianProcess], x: Floats) -> tuple[Floats, Floats]:
        predictions = [model.predict(x) for model in models]
        means = _columns([mean for mean, _ in predictions], len(x))
        return means, self.std_scale * _columns([sd for _, sd in predictions], len(x))

    def fantasize(self, points: Sequence[Point]) -> Models:
        """Return the models had the pending points turned out as predicted."""
        if not points:
            return self
        x = self.space.coordinates_of(points)
        return replace(
            self,
            objectives=tuple(model.fantasize(x) for model in self.objectives),
            violations=tuple(model.fantasize(x) for model in self.violations),
        )


def fit_models(space: Space, observations: Sequence[Observation], violations: int) -> Models | None:
    """Fit every process; None while some output is known at fewer than two points."""
    working = [o for o in observations if o.works]
    outputs = len(next((o.objectives for o in working if o.objectives), ()))
    if not outputs:
        return None
    columns = [_column(space, working, k, of_objectives=True) for k in range(outputs)]
    bounds = [_column(space, working, k, of_objectives=False) for k in range(violations)]
    if any(len(column.data.y) < 2 for column in [*columns, *bounds]):
        return None
    x = space.coordinates_of([o.point for o in observations])
    return Models(
        space,
        tuple(GaussianProcess.fit(column.data) for column in columns),
        tuple(_fit_censored(column) for column in bounds),
        Feasibility(x, np.array([o.works for o in observations]), space.unordered),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One output's data; `censored` (N,) marks rows known to be at least their value."""

    data: Data
    censored: Flags


def _column(
    space: Space, working: Sequence[Observation], k: int, *, of_objectives: bool
) -> _Column:
    points, values, censored = [], [], []
    for observation in working:
        outputs = observation.objectives if of_objectives else observation.violations
        value = outputs[k] if outputs else None
        if value is None:
            continue
        points.append(observation.point)
        values.append(float(value) if of_objectives else float(bilog(np.array(value))))
        censored.append(not of_objectives and k in observation.at_least)
    no_known_noise = np.zeros(len(points))
    data = Data(space.coordinates_of(points), np.array(values), no_known_noise, space.unordered)
    return _Column(data, np.array(censored, dtype=np.bool_))


def bilog(violations: Floats) -> Floats:
    """Compress far violations, which would hide what happens near the bound; keeps the sign.

    Of any shape, which the result has too (Eriksson and Poloczek 2021).
    """
    result: Floats = np.sign(violations) * np.log1p(np.abs(violations))
    return result


def _fit_censored(column: _Column) -> GaussianProcess:
    """Fit with each lower bound replaced by the value expected above it."""
    model = GaussianProcess.fit(column.data)
    if not column.censored.any():
        return model
    bounds = column.data.y[column.censored]
    exact = ~column.censored
    for _ in range(_CENSORING_ROUNDS if exact.sum() >= 2 else 0):
        mean, sd = model.predict(column.data.x[column.censored])
        y = column.data.y.copy()
        y[column.censored] = _mean_above(bounds, mean, sd)
        data = Data(column.data.x, y, column.data.extra_variances, column.data.unordered)
        model = GaussianProcess(data, model.parameters, model.scale)
    return model


def _mean_above(bound: Floats, mean: Floats, sd: Floats) -> Floats:
    """Return the mean of a normal variable that is known to lie above a bound."""
    z = (bound - mean) / sd
    hazard = np.exp(-0.5 * z**2 - 0.5 * np.log(2.0 * np.pi) - log_ndtr(-z))
    result: Floats = np.maximum(bound, mean + sd * hazard)
    return result


def _columns(parts: Sequence[Floats], rows: int) -> Floats:
    return np.column_stack(parts) if parts else np.empty((rows, 0))
