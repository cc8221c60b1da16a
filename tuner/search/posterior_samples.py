"""Posterior samples: functions drawn from the models, each known at the points seen so far.

Measured values are noisy, so the front is sampled, and a new point's gain is averaged over the
samples. Within a sample the evaluated points are known: a new point that must equal one of them
adds nothing, even if both are uncertain (noisy expected hypervolume improvement, Daulton, Balandat
and Bakshy 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.pareto import pareto_front
from tuner.search.gp import GaussianProcess
from tuner.search.posterior import Models
from tuner.search.space import Floats, Point


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorSamples:
    """S samples of all M objectives.

    Attributes:
        models: what they were drawn from.
        objectives: a process for each objective, conditioned on the sampled values at the points
            seen; one column of weights per sample.
        fronts: of each sample, among the points that meet the constraints in it, shape (F, M).
    """

    models: Models
    objectives: tuple[GaussianProcess, ...]
    fronts: tuple[Floats, ...]

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Return means (S, N, M) and standard deviations (N, M) at rows of `x` (N, D)."""
        predictions = [process.predict(x) for process in self.objectives]
        means = np.stack([mean.T for mean, _ in predictions], axis=-1)
        return means, self.models.std_scale * np.column_stack([sd for _, sd in predictions])

    def with_std_scale(self, std_scale: float) -> PosteriorSamples:
        """Return the same samples with standard deviations so many times as wide."""
        return replace(self, models=replace(self.models, std_scale=std_scale))

    def fantasize(self, points: Sequence[Point]) -> PosteriorSamples:
        """Return the samples had the points been evaluated, each at its mean in a sample."""
        x = self.models.space.coordinates_of(points)
        models = self.models.fantasize(points)
        is_feasible = models.constraint_posterior(x).log_feasible() > np.log(0.5)
        means, _ = self.predict(x)
        fronts = tuple(
            _front(np.concatenate([front, added[is_feasible]]))
            for front, added in zip(self.fronts, means, strict=True)
        )
        processes = tuple(process.fantasize(x) for process in self.objectives)
        return PosteriorSamples(models, processes, fronts)


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
    feasible = np.ones((samples, len(x)), dtype=np.bool_)
    for model in models.violations:
        feasible &= model.sample(x, normals()) <= 0.0
    rows = np.stack(values, axis=-1)
    return PosteriorSamples(
        models,
        tuple(m.condition_on(x, v.T) for m, v in zip(models.objectives, values, strict=True)),
        tuple(_front(row[met]) for row, met in zip(rows, feasible, strict=True)),
    )


def _front(rows: Floats) -> Floats:
    """Return the non-dominated rows, ascending in the first objective."""
    return rows[pareto_front(rows)]
