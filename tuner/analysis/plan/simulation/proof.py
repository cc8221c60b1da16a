"""Proof in simulation: a day through emulated replicas, with the plan's fleet and a router.

Parts of the day are simulated. The energy of the other intervals is that of the operating points,
times what the simulated ones of the hour used of theirs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat

import numpy as np

from tuner.analysis.plan.demand import Demand, demand_of
from tuner.analysis.plan.fleet import Counts
from tuner.analysis.plan.operating_plan import Constant, OperatingPlan, switching_j
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.analysis.plan.simulation.scene import Level, Scene
from tuner.analysis.plan.simulation.stretches import stretches_of
from tuner.analysis.plan.simulation.tallies import Tally, TaskProof, gap_bounds_ms, task_proof
from tuner.emulator.fleet.fleet_run import Arrival, FleetRun, ReplicaKind, Stretch
from tuner.emulator.fleet.routing import Routing, router_of
from tuner.load.day.rate_curve import RateCurve, weighted
from tuner.records import FloatArray

_FILLED = 0.85  # of the requests at once at capacity, where one replica is filled before the next
_SAMPLE = 2_000  # requests of each task that a router by length knows beforehand


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of the simulated day: the requests of all tasks, and the energy, J."""

    number: int
    requests: int
    good: int
    late: int
    dropped: int
    energy_j: float

    @property
    def attainment(self) -> float:
        """The share of requests that met every SLO of theirs; 1 without any."""
        return self.good / self.requests if self.requests else 1.0


@dataclass(frozen=True, slots=True)
class Proof:
    """What a simulated day used and gave; every figure is emulated.

    `simulated_s` of the `day_s` were simulated.
    """

    routing: Routing
    hours: tuple[Hour, ...]
    tasks: tuple[TaskProof, ...]
    energy_j: float
    simulated_s: float
    day_s: float

    @property
    def requests(self) -> int:
        """How many requests were simulated."""
        return sum(hour.requests for hour in self.hours)

    @property
    def weakest(self) -> TaskProof:
        """The task whose worst hour is the worst."""
        return min(self.tasks, key=lambda task: (not task.worst.missed, task.worst.attainment))

    @property
    def worst(self) -> Tally:
        """The worst hour of any task."""
        return self.weakest.worst

    @property
    def holds(self) -> bool:
        """Whether every task met its SLO in every hour."""
        return all(task.holds for task in self.tasks)


def prove(
    plan: OperatingPlan, scene: Scene, curves: Sequence[RateCurve], routing: Routing
) -> Proof:
    """Simulate a plan on the loads of its tasks, which may be those of another day."""
    switching = switching_j(plan.types, plan.actions)
    return _proof(plan, plan.running, plan.asleep, scene, curves, routing, switching)


def prove_constant(
    plan: OperatingPlan,
    constant: Constant,
    scene: Scene,
    curves: Sequence[RateCurve],
    routing: Routing,
) -> Proof:
    """Simulate a fleet that stays as it is."""
    running = np.tile(np.array(constant.running), (plan.demand.intervals, 1))
    return _proof(plan, running, np.zeros_like(running), scene, curves, routing, 0.0)


def _proof(
    plan: OperatingPlan,
    running: Counts,
    asleep: Counts,
    scene: Scene,
    curves: Sequence[RateCurve],
    routing: Routing,
    switching: float,
) -> Proof:
    weights = [task.weight for task in scene.tasks]
    curve = weighted(curves, weights)  # in requests of the first task
    demand = demand_of(curve, plan.demand.step_s, 0.0)
    count = min(demand.intervals, len(running))
    demand = replace(demand, rates=demand.rates[:count], needs=demand.needs[:count])
    each = sum(c.requests for c in curves) / max(curve.requests, 1e-9)
    stretches = stretches_of(plan.types, demand, curve, running, scene.requests / each)
    result = _fleet_run(plan, running, scene, routing).run(
        stretches,
        [_arrivals(stretch, curves, scene.seed) for stretch in stretches],
        [task.forms(_levels(plan.types), scene.seed) for task in scene.tasks],
    )
    modelled_w, rest_w = _modelled(plan, demand, running, asleep)
    hours_j = _hours_j(demand, stretches, result.power_w, modelled_w, rest_w)
    hour_of = [demand.hour_of(stretch.interval) for stretch in stretches]
    tasks = tuple(
        task_proof(task, ((hour_of[a.stretch], a) for a in result.answered if a.task == place))
        for place, task in enumerate(scene.tasks)
    )
    return Proof(
        routing=routing,
        hours=tuple(_hour(number, tasks, hours_j[number]) for number in sorted(set(hour_of))),
        tasks=tasks,
        energy_j=float(sum(hours_j) + switching),
        simulated_s=sum(s.length_s for s in stretches),
        day_s=demand.intervals * demand.step_s,
    )


def _fleet_run(plan: OperatingPlan, running: Counts, scene: Scene, routing: Routing) -> FleetRun:
    levels = _levels(plan.types)
    every = [islice(task.forms(levels, scene.seed), _SAMPLE) for task in scene.tasks]
    sample = [forms[0] for own in every for forms in own]
    kinds = [
        _kind(t, int(running[:, place].max()), levels.index(t.configuration.thinking))
        for place, t in enumerate(plan.types)
    ]
    return FleetRun(
        scene.model,
        scene.gpu,
        kinds,
        router_of(routing, sample),
        scene.seed,
        gap_bounds_ms=[gap_bounds_ms(task) for task in scene.tasks],
        acceptance=scene.tasks[0].workload.spec.acceptance,
    )


def _levels(types: Sequence[ReplicaType]) -> list[Level]:
    """Return the levels of thinking that replicas answer with."""
    return list(dict.fromkeys(t.configuration.thinking for t in types))


def _arrivals(stretch: Stretch, curves: Sequence[RateCurve], seed: int) -> Iterator[Arrival]:
    """Return when requests of each task come in a stretch, in order."""
    end_s = stretch.start_s + stretch.length_s
    own = [
        zip(curve.arrivals_s(stretch.start_s, end_s, seed + place), repeat(place))
        for place, curve in enumerate(curves)
    ]
    return heapq.merge(*own)


def _kind(kind: ReplicaType, most: int, form: int) -> ReplicaKind:
    last = kind.points[-1]
    at_capacity = kind.capacity * last.metrics["mean_e2el_ms"] / 1000.0  # Little's law
    at_once = max(1, round(_FILLED * at_capacity))
    return ReplicaKind(kind.configuration, most, kind.capacity, at_once, form)


def _hour(number: int, tasks: Sequence[TaskProof], energy_j: float) -> Hour:
    own = [hour for task in tasks for hour in task.hours if hour.number == number]
    return Hour(
        number,
        sum(hour.requests for hour in own),
        sum(hour.good for hour in own),
        sum(hour.late for hour in own),
        sum(hour.dropped for hour in own),
        energy_j,
    )


def _modelled(
    plan: OperatingPlan, demand: Demand, running: Counts, asleep: Counts
) -> tuple[FloatArray, FloatArray]:
    """Return the power of the running replicas by their operating points, and of the rest, W."""
    each = np.array([t.gpus for t in plan.types])
    off = plan.options.gpus - (running + asleep)[: demand.intervals] @ each
    rest_w = off * plan.off_w + asleep[: demand.intervals] @ np.array(
        [t.asleep_w for t in plan.types]
    )
    power_w = np.zeros(demand.intervals)
    for interval, rate in enumerate(demand.rates):
        counts = running[interval]
        capacity = sum(n * t.capacity for n, t in zip(counts, plan.types, strict=True))
        share = min(rate / capacity, 1.0) if capacity else 0.0
        power_w[interval] = sum(
            n * float(t.power_w(np.array([share * t.capacity]))[0])
            for n, t in zip(counts, plan.types, strict=True)
        )
    return power_w, np.asarray(rest_w, dtype=np.float64)


def _hours_j(
    demand: Demand,
    stretches: Sequence[Stretch],
    simulated_w: Sequence[float],
    modelled_w: FloatArray,
    rest_w: FloatArray,
) -> list[float]:
    hours_j = [0.0] * demand.hours
    sums = np.zeros((2, demand.hours))
    for stretch, power_w in zip(stretches, simulated_w, strict=True):
        hour = demand.hour_of(stretch.interval)
        sums[:, hour] += power_w, modelled_w[stretch.interval]
    expected = sums[1].sum()
    mean_ratio = sums[0].sum() / expected if expected else 1.0
    for interval in range(demand.intervals):
        hour = demand.hour_of(interval)
        used_w, expected_w = sums[:, hour]
        ratio = used_w / expected_w if expected_w else mean_ratio
        hours_j[hour] += (modelled_w[interval] * ratio + rest_w[interval]) * demand.step_s
    return hours_j
