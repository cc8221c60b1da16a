"""What a night is: a clock, measurements with noise, and the truth. And that of a sweep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from bench_search_scenarios import METRICS, OBJECTIVES, REFUSED, WORKS, Scenario, Truth

from tuner.configuration import Value
from tuner.pareto import hypervolume, pareto_front, reference_point
from tuner.spec.objective import costs

LAUNCH_S, SETTLE_S, WINDOW_S = 150.0, 10.0, 90.0
NIGHT_S = 8 * 3600.0
# Standard deviation of the log of a metric of one whole window, in the order of METRICS.
NOISE = dict(zip(METRICS, (0.02, 0.02, 0.03, 0.06), strict=True))
Point = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Seen:
    """What an evaluation showed: the SLOs' log ratios and the objectives, with noise.

    `overload` is the log of the load offered over that served; None where it is not known.
    """

    state: int
    objectives: tuple[float, ...] | None
    violations: tuple[float, ...] | None
    overload: float | None = None


@dataclass(slots=True)
class Night:
    """What one method found: (seconds, share of the true hypervolume).

    `least` is the true first objective of the best evaluated point that truly meets every SLO.
    """

    trace: list[tuple[float, float]] = field(default_factory=list)
    least: float = math.inf
    search_s: float = NIGHT_S
    evaluations: int = 0
    launches: int = 0
    proposal_s: list[float] = field(default_factory=list)

    def share_at(self, hours: float) -> float:
        return max([0.0, *(share for at_s, share in self.trace if at_s <= hours * 3600.0)])


class World:
    """A scenario that can be measured with noise, and that knows the truth."""

    def __init__(self, scenario: Scenario, truth: Truth) -> None:
        self.scenario = scenario
        self._truth = truth
        needed = [METRICS.index(name) for name in scenario.needed]
        works = (truth.state == WORKS) & ~np.isnan(truth.metrics[..., needed]).any(axis=-1)
        rows = [dict(zip(METRICS, row, strict=True)) for row in truth.metrics[works]]
        meets = [all(s.violation(row[s.metric]) <= 0 for s in scenario.slos) for row in rows]
        good = [costs(OBJECTIVES, row) for row, met in zip(rows, meets, strict=True) if met]
        points = np.array(good, dtype=np.float64)
        self.front = points[pareto_front(points)]
        self.feasible_share = len(good) / truth.state.size
        self.reference = reference_point(self.front, extent_share=0.1)
        self._whole = hypervolume(self.front, self.reference)

    def true_values(self, point: Point) -> tuple[float, ...] | None:
        """Return the true objectives of a point that truly works and meets every SLO."""
        state, metrics = self._truth.of(self.scenario.levels(point))
        if state != WORKS:
            return None
        if any(s.violation(metrics[s.metric]) > 0 for s in self.scenario.slos):
            return None
        return costs(OBJECTIVES, metrics)

    def share(self, values: Sequence[tuple[float, ...]]) -> float:
        if not values:
            return 0.0
        return hypervolume(np.array(values), self.reference) / self._whole

    def measure(self, point: Point, rng: np.random.Generator, window_s: float = WINDOW_S) -> Seen:
        state, metrics = self._truth.of(self.scenario.levels(point))
        factor = math.sqrt(WINDOW_S / window_s)
        normals = rng.standard_normal(len(METRICS))
        if state != WORKS:
            overload = float(self._truth.overload[self.scenario.levels(point)])
            return Seen(state, None, None, overload=None if math.isnan(overload) else overload)
        noisy = {
            name: metrics[name] * math.exp(NOISE[name] * factor * normal)
            for name, normal in zip(METRICS, normals, strict=True)
        }
        objectives = costs(OBJECTIVES, noisy)
        assert objectives is not None
        violations = tuple(s.violation(noisy[s.metric]) for s in self.scenario.slos)
        return Seen(state, objectives, violations)


class Log:
    """Keeps a night's clock and its trace."""

    def __init__(self, world: World) -> None:
        self.night = Night()
        self.clock_s = 0.0
        self._world = world
        self._found: list[tuple[float, ...]] = []

    def add(self, point: Point, spent_s: float, *, launched: bool) -> None:
        self.clock_s += spent_s
        self.night.evaluations += 1
        self.night.launches += launched
        values = self._world.true_values(point)
        if values is not None:
            self._found.append(values)
            self.night.least = min(self.night.least, values[0])
        self.night.trace.append((self.clock_s, self._world.share(self._found)))


def sweep(world: World, seed: int, night_s: float = NIGHT_S) -> Night:
    """What `vllm bench sweep serve` does with three values of each knob: one after the other.

    It restarts for each combination of the server's knobs, and keeps the server for the loads.
    """
    scenario, log = world.scenario, Log(world)
    rng = np.random.default_rng([seed, 88])
    inner = [name for name in scenario.knobs if name == "concurrency"]
    outer = [name for name in scenario.knobs if name not in inner]
    if seed:  # another user writes the parameters down in another order
        outer = [outer[i] for i in rng.permutation(len(outer))]
    names = [*outer, *inner]
    rows = itertools.product(*(_three(scenario.knobs[name]) for name in names))
    points = [dict(zip(names, row, strict=True)) for row in rows]
    last: dict[str, Value] | None = None
    for point in [dict(scenario.default), *points]:
        if log.clock_s >= night_s:
            break
        server = {n: point[n] for n in outer}
        seen = world.measure(point, rng)
        launch_s = 0.0 if server == last else LAUNCH_S
        window_s = 0.0 if seen.state == REFUSED else SETTLE_S + WINDOW_S
        last = None if seen.state == REFUSED else server
        log.add(point, launch_s + window_s, launched=launch_s > 0)
    return log.night


def _three(values: Sequence[Value]) -> list[Value]:
    levels = sorted({0, len(values) // 2, len(values) - 1})
    return [values[level] for level in levels]
