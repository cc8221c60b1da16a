"""Functions drawn from the models, known at the points seen: what else they may do.

Measured values are noisy, so the front is not known but drawn, and a new point's gain is averaged
over the draws. Within a draw the seen points are known: a new point that must do as one of them
does adds nothing, however uncertain both are (noisy expected hypervolume improvement, Daulton,
Balandat and Bakshy 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.search.gp import Gaussian
from tuner.search.improvement import pareto
from tuner.search.posterior import Models
from tuner.search.space import Floats, Point


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Draws of all objectives.

    Attributes:
        models: what they were drawn from.
        objectives: a process for each, certain at the points seen, whose weights hold all draws.
        fronts: of each draw, among the points that meet the constraints in it.
    """

    models: Models
    objectives: tuple[Gaussian, ...]
    fronts: tuple[Floats, ...]

    def at(self, x: Floats) -> tuple[Floats, Floats]:
        """Return means of each draw (draws, rows, objectives), and their standard deviations."""
        found = [process.predict(x) for process in self.objectives]
        means = np.stack([mean.T for mean, _ in found], axis=-1)
        return means, self.models.doubt * np.column_stack([sd for _, sd in found])

    def doubted(self, doubt: float) -> Drawn:
        """Return the same draws with standard deviations so many times as wide."""
        return replace(self, models=replace(self.models, doubt=doubt))

    def with_believed(self, points: Sequence[Point]) -> Drawn:
        """Return the draws had the points been evaluated, each where it is expected in a draw."""
        x = self.models.space.coordinates_of(points)
        models = self.models.with_believed(points)
        counts = models.chances_at(x).log_feasible() > np.log(0.5)
        means, _ = self.at(x)
        fronts = tuple(
            pareto(np.concatenate([front, added[counts]]))
            for front, added in zip(self.fronts, means, strict=True)
        )
        processes = tuple(process.with_believed(x) for process in self.objectives)
        return Drawn(models, processes, fronts)


def drawn(models: Models, points: Sequence[Point], draws: int, seed: int) -> Drawn:
    """Draw the objectives and constraints of the points together."""
    x = models.space.coordinates_of(points)
    rng = np.random.default_rng(seed)

    def normals() -> Floats:
        half = rng.standard_normal(((draws + 1) // 2, len(x)))
        return np.concatenate([half, -half])[:draws]

    values = [model.sample(x, normals()) for model in models.objectives]
    feasible = np.ones((draws, len(x)), dtype=np.bool_)
    for model in models.violations:
        feasible &= model.sample(x, normals()) <= 0.0
    rows = np.stack(values, axis=-1)
    return Drawn(
        models,
        tuple(m.certain_at(x, v.T) for m, v in zip(models.objectives, values, strict=True)),
        tuple(pareto(row[met]) for row, met in zip(rows, feasible, strict=True)),
    )
