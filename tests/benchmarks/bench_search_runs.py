"""One night of one method on one scenario, in virtual time."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from bench_search_scenarios import LAUNCH_KNOBS, METRICS, REFUSED, WORKS, Scenario, Truth

from tuner.configuration import Value
from tuner.search.improvement import hypervolume, pareto
from tuner.search.observation import Observation
from tuner.search.search import Search
from tuner.search.space import Knob, Space
from tuner.study.objective import costs

LAUNCH_S, SETTLE_S, WINDOW_S, EARLY_S = 150.0, 10.0, 90.0, 15.0
OVERLOAD_S = 45.0  # until a load that grows without bound is told from one that has not settled
NIGHT_S = 8 * 3600.0
LOG_KNOBS = ("max_num_seqs", "max_num_batched_tokens", "concurrency")
# Standard deviation of the log of a metric of one whole window, in the order of METRICS.
NOISE = dict(zip(METRICS, (0.02, 0.02, 0.03, 0.06), strict=True))
# The night ends early when so many proposals in a row promise less than so much of the hypervolume.
IDLE_PROPOSALS, IDLE_GAIN = 10, 1e-3
_CLEAR = 3.0  # standard deviations past the bound after the first seconds: an early end
_SURELY = 2.0  # of these are taken off for the bound that is told

Point = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Seen:
    """What an evaluation showed: the SLOs' log ratios and the objectives, with noise."""

    state: int
    objectives: tuple[float, ...] | None
    violations: tuple[float, ...] | None


@dataclass(slots=True)
class Night:
    """What one method found: (seconds, share of the true hypervolume), and what it hands over."""

    trace: list[tuple[float, float]] = field(default_factory=list)
    handed_over: list[dict[str, Value]] = field(default_factory=list)
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
        good = [
            costs(scenario.objectives, row) for row, met in zip(rows, meets, strict=True) if met
        ]
        self.front = pareto(np.array(good, dtype=np.float64))
        self.feasible_share = len(good) / truth.state.size
        nadir, ideal = self.front.max(axis=0), self.front.min(axis=0)
        self.reference = nadir + 0.1 * (nadir - ideal)
        self._whole = hypervolume(self.front, self.reference)

    def true_values(self, point: Point) -> tuple[float, ...] | None:
        """Return the true objectives of a point that truly works and meets every SLO."""
        state, metrics = self._truth.of(self.scenario.levels(point))
        if state != WORKS:
            return None
        if any(s.violation(metrics[s.metric]) > 0 for s in self.scenario.slos):
            return None
        return costs(self.scenario.objectives, metrics)

    def share(self, values: Sequence[tuple[float, ...]]) -> float:
        if not values:
            return 0.0
        return hypervolume(np.array(values), self.reference) / self._whole

    def measure(self, point: Point, rng: np.random.Generator, window_s: float = WINDOW_S) -> Seen:
        state, metrics = self._truth.of(self.scenario.levels(point))
        factor = math.sqrt(WINDOW_S / window_s)
        normals = rng.standard_normal(len(METRICS))
        if state != WORKS:
            return Seen(state, None, None)
        noisy = {
            name: metrics[name] * math.exp(NOISE[name] * factor * normal)
            for name, normal in zip(METRICS, normals, strict=True)
        }
        objectives = costs(self.scenario.objectives, noisy)
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
        self.night.trace.append((self.clock_s, self._world.share(self._found)))


def launch_key(point: Point) -> tuple[Value, ...]:
    return tuple(point[name] for name in LAUNCH_KNOBS if name in point)


def ours(
    world: World,
    seed: int,
    night_s: float = NIGHT_S,
    make: Callable[..., Search] = Search,
) -> Night:
    """Sessions on a warm server, early ends, and the search."""
    scenario = world.scenario
    space = search_space(scenario)
    search = make(
        space,
        violations=len(scenario.slos),
        default=scenario.default,
        is_possible=is_possible,
        seed=seed,
    )
    rng, log = np.random.default_rng([seed, 77]), Log(world)
    seen: list[Observation] = []
    warm: Point | None = None
    idle = 0
    while log.clock_s < night_s and idle < IDLE_PROPOSALS:
        began_s = time.process_time()
        suggestion = search.propose(seen, warm=warm)
        log.night.proposal_s.append(time.process_time() - began_s)
        point = dict(suggestion.point)
        is_idle = suggestion.gain is not None and suggestion.gain < IDLE_GAIN
        idle = idle + 1 if is_idle else 0
        is_warm = warm is not None and launch_key(warm) == launch_key(point)
        launch_s = None if is_warm else LAUNCH_S
        observation = _observe(world, point, rng)
        spent_s = (observation.wall_s or 0.0) + (launch_s or 0.0)
        seen.append(dataclasses.replace(observation, launch_s=launch_s, wall_s=spent_s))
        warm = point if is_warm or observation.wall_s else None
        log.add(point, spent_s, launched=not is_warm)
    log.night.handed_over = [dict(member.point) for member in search.front(seen)]
    return log.night


def _observe(world: World, point: Point, rng: np.random.Generator) -> Observation:
    """Measure as the tuner does: a clear miss is ended early, and told as a lower bound."""
    early = world.measure(point, rng, EARLY_S)
    if early.state != WORKS:
        wall_s = 0.0 if early.state == REFUSED else SETTLE_S + OVERLOAD_S
        return Observation(point, works=False, wall_s=wall_s)
    assert early.violations is not None
    bounds: list[float | None] = []
    for slo, violation in zip(world.scenario.slos, early.violations, strict=True):
        sd = NOISE[slo.metric] * math.sqrt(WINDOW_S / EARLY_S)
        bounds.append(violation - _SURELY * sd if violation > _CLEAR * sd else None)
    nothing = (None,) * len(world.scenario.objectives)
    if any(bound is not None for bound in bounds):
        known = tuple(k for k, bound in enumerate(bounds) if bound is not None)
        return Observation(
            point,
            objectives=nothing,
            violations=tuple(bounds),
            at_least=known,
            wall_s=SETTLE_S + EARLY_S,
        )
    seen = world.measure(point, rng)
    assert seen.objectives is not None and seen.violations is not None
    return Observation(
        point, objectives=seen.objectives, violations=seen.violations, wall_s=SETTLE_S + WINDOW_S
    )


def search_space(scenario: Scenario) -> Space:
    return Space(
        [
            Knob(
                name,
                values,
                ordered=not isinstance(values[0], str),
                log=name in LOG_KNOBS,
                restarts=name in LAUNCH_KNOBS,
            )
            for name, values in scenario.knobs.items()
        ]
    )


def is_possible(point: Point) -> bool:
    """vLLM's own rule, which it documents: a step has room for a token of each sequence."""
    return int(point["max_num_batched_tokens"]) >= int(point["max_num_seqs"])


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
    measured: list[tuple[dict[str, Value], Seen]] = []
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
        measured.append((point, seen))
    log.night.handed_over = handed_over(measured)
    return log.night


def _three(values: Sequence[Value]) -> list[Value]:
    levels = sorted({0, len(values) // 2, len(values) - 1})
    return [values[level] for level in levels]


def handed_over(measured: Sequence[tuple[dict[str, Value], Seen]]) -> list[dict[str, Value]]:
    """Return the front of what was measured once, at face value, best first objective first."""
    good = [
        (seen.objectives, point)
        for point, seen in measured
        if seen.objectives is not None and seen.violations and max(seen.violations) <= 0
    ]
    if not good:
        return []
    front = {tuple(row) for row in pareto(np.array([values for values, _ in good]))}
    kept = [(values, point) for values, point in good if values in front]
    return [point for _, point in sorted(kept, key=lambda pair: pair[0])]
