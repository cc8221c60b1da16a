"""What the observations say of every point: a process for each objective and constraint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr

from tuner.search.feasibility import Feasibility
from tuner.search.gp import Data, Gaussian
from tuner.search.observation import Observation
from tuner.search.space import Floats, Point, Space

_CENSORING_ROUNDS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Chances:
    """Mean and standard deviation per point of bilog violations, and whether it works."""

    violation_means: Floats
    violation_sds: Floats
    log_works: Floats

    def log_feasible(self, margin: float = 0.0) -> Floats:
        """Return the log probability of working and meeting every constraint."""
        terms = log_ndtr((-margin - self.violation_means) / self.violation_sds)
        result: Floats = self.log_works + terms.sum(axis=1)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Beliefs(Chances):
    """The same with mean and standard deviation of objectives."""

    objective_means: Floats
    objective_sds: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """Processes over one space; `objectives` and `violations` hold one per output.

    `doubt` is how many times as wide as the processes say their standard deviations are taken.
    """

    space: Space
    objectives: tuple[Gaussian, ...]
    violations: tuple[Gaussian, ...]
    works: Feasibility
    doubt: float = 1.0

    def at(self, x: Floats) -> Beliefs:
        """Return what is believed of rows of coordinates."""
        chances = self.chances_at(x)
        return Beliefs(
            chances.violation_means,
            chances.violation_sds,
            chances.log_works,
            *self._believed(self.objectives, x),
        )

    def chances_at(self, x: Floats) -> Chances:
        """Return the same without the objectives."""
        return Chances(*self._believed(self.violations, x), self.works.log_probability(x))

    def _believed(self, models: Sequence[Gaussian], x: Floats) -> tuple[Floats, Floats]:
        found = [model.predict(x) for model in models]
        means = _columns([mean for mean, _ in found], len(x))
        return means, self.doubt * _columns([sd for _, sd in found], len(x))

    def with_believed(self, points: Sequence[Point]) -> Models:
        """Return the models had the points turned out as believed."""
        if not points:
            return self
        x = self.space.coordinates_of(points)
        return replace(
            self,
            objectives=tuple(model.with_believed(x) for model in self.objectives),
            violations=tuple(model.with_believed(x) for model in self.violations),
        )


def learn(space: Space, observations: Sequence[Observation], violations: int) -> Models | None:
    """Fit every process; None while some output has not been seen at two points."""
    seen = [o for o in observations if o.works]
    outputs = len(next((o.objectives for o in seen if o.objectives), ()))
    if not outputs:
        return None
    columns = [_column(space, seen, k, of_objectives=True) for k in range(outputs)]
    bounds = [_column(space, seen, k, of_objectives=False) for k in range(violations)]
    if any(len(column.data.y) < 2 for column in [*columns, *bounds]):
        return None
    x = space.coordinates_of([o.point for o in observations])
    return Models(
        space,
        tuple(Gaussian.fitted(column.data) for column in columns),
        tuple(_fit_censored(column) for column in bounds),
        Feasibility(x, np.array([o.works for o in observations]), space.unordered),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One output's data; `censored` rows are known to be at least their value."""

    data: Data
    censored: np.ndarray[tuple[int], np.dtype[np.bool_]]


def _column(space: Space, seen: Sequence[Observation], k: int, *, of_objectives: bool) -> _Column:
    points, values, variances, censored = [], [], [], []
    for observation in seen:
        outputs = observation.objectives if of_objectives else observation.violations
        value = outputs[k] if outputs else None
        if value is None:
            continue
        offset = 0 if of_objectives else len(observation.objectives)
        sds = observation.noise_sds
        sd = sds[offset + k] if sds else None
        points.append(observation.point)
        values.append(float(value) if of_objectives else float(bilog(np.array(value))))
        variances.append(0.0 if sd is None else sd**2)
        censored.append(not of_objectives and k in observation.at_least)
    data = Data(
        space.coordinates_of(points), np.array(values), np.array(variances), space.unordered
    )
    return _Column(data, np.array(censored, dtype=np.bool_))


def bilog(violations: Floats) -> Floats:
    """Compress far violations, which would hide what happens near the bound; keeps the sign."""
    result: Floats = np.sign(violations) * np.log1p(np.abs(violations))
    return result


def _fit_censored(column: _Column) -> Gaussian:
    """Fit with each lower bound replaced by the value expected above it."""
    model = Gaussian.fitted(column.data)
    if not column.censored.any():
        return model
    bounds = column.data.y[column.censored]
    known = ~column.censored
    for _ in range(_CENSORING_ROUNDS if known.sum() >= 2 else 0):
        mean, sd = model.predict(column.data.x[column.censored])
        y = column.data.y.copy()
        y[column.censored] = _mean_above(bounds, mean, sd)
        data = Data(column.data.x, y, column.data.extra_variances, column.data.unordered)
        model = Gaussian(data, model.parameters, model.scale)
    return model


def _mean_above(bound: Floats, mean: Floats, sd: Floats) -> Floats:
    """Return the mean of a normal variable that is known to lie above a bound."""
    z = (bound - mean) / sd
    hazard = np.exp(-0.5 * z**2 - 0.5 * np.log(2.0 * np.pi) - log_ndtr(-z))
    result: Floats = np.maximum(bound, mean + sd * hazard)
    return result


def _columns(parts: Sequence[Floats], rows: int) -> Floats:
    return np.column_stack(parts) if parts else np.empty((rows, 0))
