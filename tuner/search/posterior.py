"""Posterior: a Gaussian process for each objective and constraint, fitted to the observations.

N is the number of points, D that of knobs, M that of objectives, C that of constraints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr

from tuner.search.cards.card_effects import ENERGY_SD, SPEED_SD, without_card_effects
from tuner.search.censoring import fit_censored
from tuner.search.failures.capacity import Capacity
from tuner.search.failures.feasibility import Feasibility
from tuner.search.gp import Data, GaussianProcess
from tuner.search.observation import Observation
from tuner.search.space import Flags, Floats, Point, Space


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
        works: the probability that a point neither crashes nor is refused.
        keeps_up: the probability that it keeps up with the offered load.
        std_scale: factor on every standard deviation of the processes.
    """

    space: Space
    objectives: tuple[GaussianProcess, ...]
    violations: tuple[GaussianProcess, ...]
    works: Feasibility
    keeps_up: Capacity
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
            *self._predict(self.violations, x),
            self.log_works(x),
        )

    def log_works(self, x: Floats) -> Floats:
        """Return the log probability of working at rows of `x` (N, D), shape (N,)."""
        return self.works.log_probability(x) + self.keeps_up.log_probability(x)

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
    return Models(
        space,
        tuple(GaussianProcess.fit(column.data) for column in columns),
        tuple(fit_censored(column.data, column.censored) for column in bounds),
        *_failures(space, observations),
    )


def fit_constraints(space: Space, observations: Sequence[Observation], violations: int) -> Models:
    """Fit what is known of feasibility, without objectives.

    A constraint is left out while it is known at fewer than two points.
    """
    working = [o for o in observations if o.works]
    bounds = [_column(space, working, k, of_objectives=False) for k in range(violations)]
    return Models(
        space,
        (),
        tuple(fit_censored(b.data, b.censored) for b in bounds if len(b.data.y) >= 2),
        *_failures(space, observations),
    )


def _failures(space: Space, observations: Sequence[Observation]) -> tuple[Feasibility, Capacity]:
    """Learn from what crashed, and from what did not keep up."""
    x = space.coordinates_of([o.point for o in observations])
    overloads = np.array([math.nan if o.overload is None else o.overload for o in observations])
    loaded = np.isfinite(overloads)
    ran = np.array([o.works for o in observations]) | loaded
    return (
        Feasibility(x, ran, space.unordered),
        Capacity(x[loaded], overloads[loaded], space.unordered),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One output's data; `censored` (N,) marks rows known to be at least their value."""

    data: Data
    censored: Flags


def _column(
    space: Space, working: Sequence[Observation], k: int, *, of_objectives: bool
) -> _Column:
    points, values, censored, cards = [], [], [], []
    for observation in working:
        outputs = observation.objectives if of_objectives else observation.violations
        value = outputs[k] if outputs else None
        if value is None:
            continue
        points.append(observation.point)
        cards.append(observation.card)
        values.append(float(value) if of_objectives else float(bilog(np.array(value))))
        censored.append(not of_objectives and k in observation.at_least)
    no_known_noise = np.zeros(len(points))
    data = Data(space.coordinates_of(points), np.array(values), no_known_noise, space.unordered)
    data = without_card_effects(data, cards, ENERGY_SD if of_objectives else SPEED_SD)
    return _Column(data, np.array(censored, dtype=np.bool_))


def bilog(violations: Floats) -> Floats:
    """Compress far violations, which would hide what happens near the bound; keeps the sign.

    Of any shape, which the result has too (Eriksson and Poloczek 2021).
    """
    result: Floats = np.sign(violations) * np.log1p(np.abs(violations))
    return result


def _columns(parts: Sequence[Floats], rows: int) -> Floats:
    return np.column_stack(parts) if parts else np.empty((rows, 0))
