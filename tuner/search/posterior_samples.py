"""Posterior samples: functions drawn from the models, each known at the points seen so far.

Measured values are noisy, so the front is sampled, and a new point's gain is averaged over the
samples. Within a sample the evaluated points are known, objectives and constraints: a new point
that must equal one of them adds nothing, even if both are uncertain (noisy expected hypervolume
improvement, Daulton, Balandat and Bakshy 2021). Where it may be that a point misses a constraint,
one beside it misses it in the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr

from tuner.pareto import pareto_front
from tuner.search.acquisition import expected_lowering
from tuner.search.gp import GaussianProcess
from tuner.search.posterior import Models
from tuner.search.space import Floats, Point

_SMALLEST = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorSamples:
    """S samples of all M objectives and C constraints.

    Attributes:
        models: what they were drawn from.
        objectives: a process for each objective, conditioned on the sampled values at the points
            seen; one column of weights per sample.
        violations: the same for each constraint.
        fronts: of each sample, among the points that meet the constraints in it, shape (F, M).
    """

    models: Models
    objectives: tuple[GaussianProcess, ...]
    violations: tuple[GaussianProcess, ...]
    fronts: tuple[Floats, ...]

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Return means (S, N, M) and standard deviations (N, M) at rows of `x` (N, D)."""
        predictions = [process.predict(x) for process in self.objectives]
        means = np.stack([mean.T for mean, _ in predictions], axis=-1)
        return means, self.models.std_scale * np.column_stack([sd for _, sd in predictions])

    def log_feasible(self, x: Floats, log_works: Floats) -> Floats:
        """Return the log probability of feasibility in each sample, shape (S, N).

        `log_works` is that of working at all, which is not sampled, at rows of `x` (N, D).
        """
        result = np.repeat(log_works[None], len(self.fronts), axis=0)
        for process in self.violations:
            mean, sd = process.predict(x)
            result += log_ndtr(-mean.T / (self.models.std_scale * sd))
        return result

    def log_lowering(self, x: Floats) -> Floats:
        """Return the log of how much the largest violation is expected to fall, shape (N,).

        Below the least that a point seen has in the same sample, at rows of `x` (N, D).
        """
        largest = np.max([process.data.y for process in self.violations], axis=0)
        predictions = [process.predict(x) for process in self.violations]
        sds = self.models.std_scale * np.column_stack([sd for _, sd in predictions])
        lowering = [
            expected_lowering(least, np.column_stack([mean[:, k] for mean, _ in predictions]), sds)
            for k, least in enumerate(largest.min(axis=0))
        ]
        result: Floats = np.log(np.mean(lowering, axis=0) + _SMALLEST)
        return result

    def with_std_scale(self, std_scale: float) -> PosteriorSamples:
        """Return the same samples with standard deviations so many times as wide."""
        return replace(self, models=replace(self.models, std_scale=std_scale))

    def fantasize(self, points: Sequence[Point]) -> PosteriorSamples:
        """Return the samples had the points been evaluated, each at its mean in a sample."""
        x = self.models.space.coordinates_of(points)
        models = self.models.fantasize(points)
        means, _ = self.predict(x)
        is_feasible = self.log_feasible(x, self.models.log_works(x)) > np.log(0.5)
        fronts = tuple(
            _front(np.concatenate([front, added[met]]))
            for front, added, met in zip(self.fronts, means, is_feasible, strict=True)
        )
        return PosteriorSamples(
            models,
            tuple(process.fantasize(x) for process in self.objectives),
            tuple(process.fantasize(x) for process in self.violations),
            fronts,
        )


def sample_posterior(
    models: Models, points: Sequence[Point], samples: int, seed: int
) -> PosteriorSamples:
    """Sample the objectives and constraints of the points jointly."""
    x = models.space.coordinates_of(points)
    rng = np.random.default_rng(seed)

    def normals() -> Floats:
        """Return antithetic normal deviates, shape (S, N)."""
        half = rng.standard_normal(((samples + 1) // 2, len(x)))
        return np.concatenate([half, -half])[:samples]

    values = [model.sample(x, normals()) for model in models.objectives]
    violations = [model.sample(x, normals()) for model in models.violations]
    feasible = np.ones((samples, len(x)), dtype=np.bool_)
    for violation in violations:
        feasible &= violation <= 0.0
    rows = np.stack(values, axis=-1)
    return PosteriorSamples(
        models,
        tuple(m.condition_on(x, v.T) for m, v in zip(models.objectives, values, strict=True)),
        tuple(m.condition_on(x, v.T) for m, v in zip(models.violations, violations, strict=True)),
        tuple(_front(row[met]) for row, met in zip(rows, feasible, strict=True)),
    )


def _front(rows: Floats) -> Floats:
    """Return the non-dominated rows, ascending in the first objective."""
    return rows[pareto_front(rows)]
