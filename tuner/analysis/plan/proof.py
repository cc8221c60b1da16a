"""Proof in simulation: a day through emulated replicas, with the plan's fleet and a router.

A day has millions of requests, so parts of it are simulated. In every hour these are the interval
in which the load is the largest part of the running capacity, and one in the middle of that order
if the requests suffice; of each, the stretch around its highest rate. The energy of the other
intervals is that of the operating points, times what the simulated ones of the hour used of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from tuner.analysis.plan.demand import Demand, demand_of
from tuner.analysis.plan.fleet import Counts
from tuner.analysis.plan.operating_plan import Constant, OperatingPlan, switching_j
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.emulator.fleet.fleet_run import Answered, FleetRun, ReplicaKind, Stretch
from tuner.emulator.fleet.routing import Routing, router_of
from tuner.load.day.rate_curve import RateCurve
from tuner.load.workload import Workload
from tuner.records import FloatArray
from tuner.slo import Slo, request_limits_ms

REQUESTS = 60_000
ATTAINMENT = 0.99
_SHORTEST_S, _SETTLE_S = 45.0, 15.0
_FEWEST = 24  # stretches
_FILLED = 0.85  # of the requests at once at capacity, where one replica is filled before the next
_SAMPLE = 2_000  # prompts that a router by length knows beforehand
_SHARES = {"p50": 0.5, "mean": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated: the machine, the requests and the SLOs; `requests` is about how many."""

    model: ModelShape
    gpu: Gpu
    workload: Workload
    slos: tuple[Slo, ...]
    requests: int = REQUESTS
    seed: int = 0

    @property
    def needed(self) -> float:
        """The share of requests that has to be good: the least percentile of the SLOs."""
        shares = [_SHARES.get(slo.metric.partition("_")[0], ATTAINMENT) for slo in self.slos]
        return min(shares, default=ATTAINMENT)


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of the simulated day: requests, those within every SLO, late and dropped ones."""

    number: int
    requests: int
    good: int
    late: int
    dropped: int
    energy_j: float

    @property
    def attainment(self) -> float:
        """The share of requests that met every SLO; 1 without any."""
        return self.good / self.requests if self.requests else 1.0


@dataclass(frozen=True, slots=True)
class Proof:
    """What a simulated day used and gave; every figure is emulated.

    `simulated_s` of the `day_s` were simulated. Latencies are of all requests, ms.
    """

    routing: Routing
    hours: tuple[Hour, ...]
    energy_j: float
    needed: float
    simulated_s: float
    day_s: float
    p50_ttft_ms: float
    p99_ttft_ms: float
    p99_tpot_ms: float

    @property
    def requests(self) -> int:
        """How many requests were simulated."""
        return sum(hour.requests for hour in self.hours)

    @property
    def worst(self) -> Hour:
        """The hour of least attainment."""
        return min(self.hours, key=lambda hour: hour.attainment)

    @property
    def holds(self) -> bool:
        """Whether the SLO was met in every hour."""
        return self.worst.attainment >= self.needed


def prove(plan: OperatingPlan, scene: Scene, curve: RateCurve, routing: Routing) -> Proof:
    """Simulate a plan on the load of `curve`, which may be another day than the plan's."""
    switching = switching_j(plan.types, plan.actions)
    return _proof(plan, plan.running, plan.asleep, scene, curve, routing, switching)


def prove_constant(
    plan: OperatingPlan, constant: Constant, scene: Scene, curve: RateCurve, routing: Routing
) -> Proof:
    """Simulate a fleet that stays as it is."""
    running = np.tile(np.array(constant.running), (plan.demand.intervals, 1))
    return _proof(plan, running, np.zeros_like(running), scene, curve, routing, 0.0)


def _proof(
    plan: OperatingPlan,
    running: Counts,
    asleep: Counts,
    scene: Scene,
    curve: RateCurve,
    routing: Routing,
    switching: float,
) -> Proof:
    demand = demand_of(curve, plan.demand.step_s, 0.0)
    count = min(demand.intervals, len(running))
    demand = replace(demand, rates=demand.rates[:count], needs=demand.needs[:count])
    stretches = _stretches(plan.types, demand, curve, running, scene.requests)
    workload = scene.workload.unseen(scene.seed)
    level = plan.types[0].configuration.thinking  # the same for all that are simulated
    sample = [len(r.prompt_token_ids) for r in islice(workload.requests(level), _SAMPLE)]
    kinds = [_kind(t, int(running[:, p].max())) for p, t in enumerate(plan.types)]
    run = FleetRun(scene.model, scene.gpu, kinds, router_of(routing, sample), scene.seed)
    arrivals = [curve.arrivals_s(s.start_s, s.start_s + s.length_s, scene.seed) for s in stretches]
    result = run.run(stretches, arrivals, workload.requests(level))
    modelled_w, rest_w = _modelled(plan, demand, running, asleep)
    hours_j = _hours_j(demand, stretches, result.power_w, modelled_w, rest_w)
    hours = _hours(demand, stretches, result.answered, scene.slos, hours_j)
    ttft_ms = np.array([a.ttft_ms for a in result.answered if a.ttft_ms is not None] or [0.0])
    tpot_ms = np.array([a.tpot_ms for a in result.answered if a.tpot_ms is not None] or [0.0])
    return Proof(
        routing=routing,
        hours=hours,
        energy_j=float(sum(hours_j) + switching),
        needed=scene.needed,
        simulated_s=sum(s.length_s for s in stretches),
        day_s=demand.intervals * demand.step_s,
        p50_ttft_ms=float(np.percentile(ttft_ms, 50)),
        p99_ttft_ms=float(np.percentile(ttft_ms, 99)),
        p99_tpot_ms=float(np.percentile(tpot_ms, 99)),
    )


def _kind(kind: ReplicaType, most: int) -> ReplicaKind:
    last = kind.points[-1]
    at_capacity = kind.capacity * last.metrics["mean_e2el_ms"] / 1000.0  # Little's law
    at_once = max(1, round(_FILLED * at_capacity))
    return ReplicaKind(kind.configuration, most, kind.capacity, at_once)


def _stretches(
    types: Sequence[ReplicaType],
    demand: Demand,
    curve: RateCurve,
    running: Counts,
    requests: int,
) -> list[Stretch]:
    chosen = _chosen(types, demand, running, requests)
    mean_rate = max(float(demand.rates[chosen].mean()), 1e-9)
    length_s = min(max(requests / (len(chosen) * mean_rate), _SHORTEST_S), demand.step_s)
    return [
        Stretch(
            interval,
            _busiest(curve, interval * demand.step_s, demand.step_s, length_s),
            length_s,
            min(_SETTLE_S, length_s / 3.0),
            tuple(running[interval].tolist()),
        )
        for interval in chosen
    ]


def _chosen(
    types: Sequence[ReplicaType], demand: Demand, running: Counts, requests: int
) -> list[int]:
    """Return the intervals to simulate: the tightest of each hour, and a middling one.

    Where these are too many requests, only the tightest, and then only the tightest hours; of a
    day's hours none is left out in a proof, which has that many requests at least.
    """
    capacity = running[: demand.intervals] @ np.array([t.capacity for t in types])
    tightness = demand.needs / np.maximum(capacity, 1e-9)
    hour_of = np.array([demand.hour_of(i) for i in range(demand.intervals)])
    tightest, middling = [], []
    for hour in range(demand.hours):
        own = np.flatnonzero(hour_of == hour)
        if not own.size:  # an interval may be longer than an hour
            continue
        order = own[np.argsort(-tightness[own], kind="stable")]
        tightest.append(int(order[0]))
        middling.append(int(order[len(order) // 2]))
    most = max(_FEWEST, int(requests / (_SHORTEST_S * max(float(demand.rates.mean()), 1e-9))))
    if most >= 2 * len(tightest):
        return sorted({*tightest, *middling})
    return sorted(sorted(tightest, key=lambda i: -tightness[i])[:most])


def _busiest(curve: RateCurve, start_s: float, step_s: float, length_s: float) -> float:
    """Return where in an interval a stretch begins, so that it holds the highest rate."""
    first, last = int(start_s // curve.step_s), int(np.ceil((start_s + step_s) / curve.step_s))
    rates = curve.rates[first : min(last, len(curve.rates))]
    peak_s = (first + int(rates.argmax()) + 0.5) * curve.step_s
    return float(min(max(peak_s - length_s / 2.0, start_s), start_s + step_s - length_s))


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


def _hours(
    demand: Demand,
    stretches: Sequence[Stretch],
    answered: Sequence[Answered],
    slos: Sequence[Slo],
    hours_j: Sequence[float],
) -> tuple[Hour, ...]:
    limits_ms = request_limits_ms(slos)
    simulated = {demand.hour_of(stretch.interval) for stretch in stretches}
    counts = np.zeros((demand.hours, 3), dtype=np.int64)  # good, late, dropped
    for one in answered:
        hour = demand.hour_of(stretches[one.stretch].interval)
        counts[hour, _fate(one, limits_ms)] += 1
    return tuple(
        Hour(number, good + late + dropped, good, late, dropped, hours_j[number])
        for number, (good, late, dropped) in enumerate(counts.tolist())
        if number in simulated
    )


def _fate(one: Answered, limits_ms: dict[str, float]) -> int:
    if one.ttft_ms is None:
        return 2
    known = {"ttft_ms": one.ttft_ms, "tpot_ms": one.tpot_ms, "e2el_ms": one.e2el_ms}
    late = any(
        value is not None and value > limits_ms[name]
        for name, value in known.items()
        if name in limits_ms
    )
    return int(late)
