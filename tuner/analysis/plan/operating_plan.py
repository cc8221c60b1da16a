"""Operating plan: the schedule of least energy, its actions, and what stays on all day instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import ceil, inf

import numpy as np

from tuner.analysis.plan.demand import Demand, demand_of
from tuner.analysis.plan.fleet import Counts, Fleet, Move, cost_of, gpu_off_w, states_in
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.analysis.plan.schedule import Goal, Schedule, best_schedule, constant_costs
from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve
from tuner.records import FloatArray

STEP_S = 300.0
RESERVE = 0.15
DWELL_S = 600.0
_DAY_S = 86_400.0
_MOST_STATES = 20_000
_PAIR = 2
_NEAR = 1.02  # of the least energy: a plan of fewer configurations is taken then
_MOST_CELLS = 40_000_000  # states x intervals x dwell, 8 bytes each


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What is asked of a plan.

    Attributes:
        gpus: how many there are.
        step_s: the length of an interval; it is lengthened to the longest lead time.
        reserve: share of capacity above the highest load near an interval.
        dwell_s: for at least so long the fleet stays as it is after a change.
        more_in: what is added to the reserve in some hours, by their numbers.
        power_budget_w: for all GPUs; then the plan serves as much as it can below it.
        free_gpus: how many of the GPUs the plan may use in each interval; None is all of them.
        own_gpus: how many are this plan's where all of them run; None is all.
    """

    gpus: int
    step_s: float = STEP_S
    reserve: float = RESERVE
    dwell_s: float = DWELL_S
    more_in: Mapping[int, float] = field(default_factory=dict)
    power_budget_w: float | None = None
    free_gpus: Counts | None = None
    own_gpus: int | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """What to do to replicas of one type, and when to begin so that it is done in time.

    `at_s` counts from the start of the plan; it is below 0 where the day before has to begin it.
    """

    at_s: float
    interval: int
    move: Move
    kind: int
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A fleet that stays as it is all day: replicas of each type, and its energy, J."""

    running: tuple[int, ...]
    energy_j: float

    def capacity(self, types: Sequence[ReplicaType]) -> float:
        """Return the requests/s that it takes under the SLO."""
        return sum(count * kind.capacity for count, kind in zip(self.running, types, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPlan:
    """A plan by the operating points; what it uses in simulation stands elsewhere.

    Attributes:
        running, asleep: replicas of each type in each interval; shape (intervals, types).
        served: requests/s in each interval; less than the load only under a power budget.
        power_w: mean power of all GPUs in each interval.
        static: the fleet of least energy that has the capacity all day; None if there is none.
        all_on: every GPU with the recommended configuration.
        is_exact: whether mixes of all the types were tried, and not only pairs.
    """

    curve: RateCurve
    options: PlanOptions
    types: tuple[ReplicaType, ...]
    demand: Demand
    running: Counts
    asleep: Counts
    served: FloatArray
    power_w: FloatArray
    energy_j: float
    static: Constant | None
    all_on: Constant
    actions: tuple[Action, ...]
    is_exact: bool

    @property
    def blocked_gpus(self) -> Counts:
        """GPUs in use in each interval, with those on which replicas start for the next one."""
        each = np.array([kind.gpus for kind in self.types])
        used = (self.running + self.asleep) @ each
        for action in self.actions:
            if action.move is Move.START:
                used[action.interval - 1] += action.count * each[action.kind]
        return np.asarray(used, dtype=np.int64)

    @property
    def off_w(self) -> float:
        """Power of a GPU without a server, W."""
        return gpu_off_w(self.types)

    @property
    def saved(self) -> float | None:
        """Share of the static fleet's energy that the plan saves, by the operating points."""
        return None if self.static is None else 1.0 - self.energy_j / self.static.energy_j

    def admitted(self, curve: RateCurve) -> RateCurve:
        """Return a load; under a power budget what the plan lets in of it."""
        if self.options.power_budget_w is None:
            return curve
        step_s = min(curve.step_s, self.demand.step_s)
        rates = np.repeat(curve.rates, round(curve.step_s / step_s))
        served = np.repeat(self.served, round(self.demand.step_s / step_s))
        count = min(len(rates), len(served))
        return replace(curve, step_s=step_s, rates=np.minimum(rates[:count], served[:count]))


def make_plan(
    types: Sequence[ReplicaType], curve: RateCurve, options: PlanOptions
) -> OperatingPlan:
    """Return the plan of least energy. Raises `UsageError` for a load beyond the capacity."""
    step_s = interval_s(types, curve, options.step_s)
    demand = demand_of(curve, step_s, options.reserve, options.more_in)
    demand = replace(demand, gpus=options.free_gpus)
    usable = [t for t in types if t.gpus <= options.gpus]
    if not usable:
        least = min(t.gpus for t in types)
        raise UsageError(f"--gpus {options.gpus}: one replica takes {least} GPUs; give more")
    if options.power_budget_w is None:
        _require_capacity(usable, demand, curve, options)
    if options.dwell_s > curve.length_s:
        raise UsageError(
            f"--dwell {options.dwell_s:g} is longer than the load, {curve.length_s:g} s: give a "
            "shorter one"
        )
    dwell = max(1, ceil(options.dwell_s / step_s - 1e-9))
    goal = Goal(options.power_budget_w)
    repeats = curve.length_s >= _DAY_S * (1.0 - 1e-6)
    best, is_exact = _best(usable, demand, options, dwell, goal, repeats=repeats)
    if best is None:
        raise UsageError(
            "no schedule keeps the dwell time under this load and power budget; give a shorter "
            "--dwell, more --gpus or more power"
        )
    return _plan_of(best, usable, curve, options, demand, goal, is_exact=is_exact, loops=repeats)


def _best(
    types: Sequence[ReplicaType],
    demand: Demand,
    options: PlanOptions,
    dwell: int,
    goal: Goal,
    *,
    repeats: bool,
) -> tuple[Schedule | None, bool]:
    """Return the best of the fewest types that come near the best of all mixes.

    All types are solved together where that is small enough, else pairs at most; also say which.
    """
    most = min(_MOST_STATES, _MOST_CELLS // (demand.intervals * dwell))
    is_exact = states_in(types, options.gpus) <= most
    mixes = [mix for size in (1, 2) for mix in combinations(types, size)]
    mixes = [mix for mix in mixes if states_in(mix, options.gpus) <= most]
    if not mixes:
        raise UsageError(
            f"{options.gpus} GPUs, {demand.intervals} intervals and a dwell time of {dwell} are "
            "too many to plan at once: give a longer --step or a shorter --dwell"
        )
    if is_exact and len(types) > _PAIR:
        mixes.append(tuple(types))
    off_w = gpu_off_w(types)
    found: dict[int, Schedule] = {}
    for mix in mixes:
        fleet = Fleet(mix, options.gpus, off_w)
        near = min((one.cost_j for one in found.values()), default=inf) * _NEAR
        one = best_schedule(fleet, demand, dwell, goal, repeats=repeats, at_most_j=near)
        known = found.get(len(mix))
        if one is not None and (known is None or one.cost_j < known.cost_j):
            found[len(mix)] = one
    if not found:
        return None, is_exact
    near = min(one.cost_j for one in found.values()) * _NEAR
    return next(one for _, one in sorted(found.items()) if one.cost_j <= near), is_exact


def _plan_of(
    schedule: Schedule,
    types: Sequence[ReplicaType],
    curve: RateCurve,
    options: PlanOptions,
    demand: Demand,
    goal: Goal,
    *,
    is_exact: bool,
    loops: bool,
) -> OperatingPlan:
    fleet, states = schedule.fleet, schedule.states
    served, power_w = goal.outcome(fleet, demand, states)
    running = _of_types(types, fleet, fleet.running[states])
    asleep = _of_types(types, fleet, fleet.asleep[states])
    actions = tuple(_actions(types, running, asleep, demand.step_s, loops=loops))
    return OperatingPlan(
        curve=curve,
        options=options,
        types=tuple(types),
        demand=demand,
        running=running,
        asleep=asleep,
        served=served,
        power_w=power_w,
        energy_j=float(power_w.sum() * demand.step_s + switching_j(types, actions)),
        static=_static(types, replace(demand, gpus=None), options, goal),
        all_on=_all_on(types, demand, options, goal),
        actions=actions,
        is_exact=is_exact,
    )


def switching_j(types: Sequence[ReplicaType], actions: Sequence[Action]) -> float:
    """Return what the actions use beyond the states before them, J."""
    return sum(cost_of(types[a.kind], a.move) * a.count for a in actions)


def _of_types(types: Sequence[ReplicaType], fleet: Fleet, counts: Counts) -> Counts:
    """Return counts with a column for every type, 0 for those that the fleet lacks."""
    found = np.zeros((len(counts), len(types)), dtype=np.int64)
    for place, kind in enumerate(fleet.types):
        found[:, types.index(kind)] = counts[:, place]
    return found


def _static(
    types: Sequence[ReplicaType], demand: Demand, options: PlanOptions, goal: Goal
) -> Constant | None:
    """Return the best fleet of running replicas that never changes; sleep is no part of it."""
    found: Constant | None = None
    awake = [replace(t, sleep=None) for t in types]
    mixes: list[Sequence[ReplicaType]] = [awake]
    if states_in(awake, options.gpus) > _MOST_STATES:
        mixes = [mix for size in (1, 2) for mix in combinations(awake, size)]
    for mix in mixes:
        if len(mix) > 1 and states_in(mix, options.gpus) > _MOST_STATES:
            continue
        fleet = Fleet(mix, options.gpus, gpu_off_w(types))
        costs_j = constant_costs(fleet, demand, goal)
        state = int(costs_j.argmin())
        cost_j = float(costs_j[state])
        if cost_j < inf and (found is None or cost_j < found.energy_j):
            running = _of_types(awake, fleet, fleet.running[[state]])[0]
            found = Constant(tuple(running.tolist()), cost_j)
    return found


def _all_on(
    types: Sequence[ReplicaType], demand: Demand, options: PlanOptions, goal: Goal
) -> Constant:
    """Return every GPU of the plan's own with the first type, which is the recommendation."""
    own = options.gpus if options.own_gpus is None else options.own_gpus
    count = own // types[0].gpus
    fleet = Fleet([replace(types[0], sleep=None)], options.gpus, gpu_off_w(types))
    state = np.full(demand.intervals, fleet.place_of([count], [0]))
    _, power_w = goal.outcome(fleet, demand, state)
    rest = (0,) * (len(types) - 1)
    return Constant((count, *rest), float(power_w.sum() * demand.step_s))


def _actions(
    types: Sequence[ReplicaType], running: Counts, asleep: Counts, step_s: float, *, loops: bool
) -> Iterator[Action]:
    """Yield what is done before each interval; a plan that repeats begins after its own end."""
    for interval in range(0 if loops else 1, len(running)):
        for place, kind in enumerate(types):
            up = int(running[interval, place] - running[interval - 1, place])
            down = int(asleep[interval, place] - asleep[interval - 1, place])
            for move, count in _moves(up, down):
                lead_s = {Move.START: kind.start_s, Move.WAKE: kind.wake_s}.get(move, 0.0)
                yield Action(interval * step_s - lead_s, interval, move, place, count)


def _moves(more: int, asleep: int) -> list[tuple[Move, int]]:
    """Return the moves that change the running replicas by `more`, those asleep by `asleep`."""
    woken = max(0, min(more, -asleep))
    sent = max(0, asleep)
    counts = {
        Move.START: max(0, more - woken + sent),
        Move.WAKE: woken,
        Move.SLEEP: sent,
        Move.STOP: max(0, -(more - woken + sent)),
        Move.DROP: max(0, -asleep - woken),
    }
    return [(move, count) for move, count in counts.items() if count]


def interval_s(types: Sequence[ReplicaType], curve: RateCurve, asked_s: float) -> float:
    """Return the length of an interval: a start has to fit into the one before."""
    lead_s = max(kind.start_s for kind in types)
    step_s = asked_s * max(1, ceil(lead_s / asked_s - 1e-9))
    if step_s > curve.step_s:
        step_s = curve.step_s * ceil(step_s / curve.step_s - 1e-9)
    if curve.length_s < 2 * step_s:
        raise UsageError(
            f"the load lasts {curve.length_s:g} s, less than two intervals of {step_s:g} s: give a "
            f"longer one (a start takes {lead_s:.0f} s)"
        )
    return step_s


def _require_capacity(
    types: Sequence[ReplicaType], demand: Demand, curve: RateCurve, options: PlanOptions
) -> None:
    best = max(types, key=lambda t: t.capacity / t.gpus)
    most = options.gpus // best.gpus * best.capacity
    place = int(demand.needs.argmax())
    need = float(demand.needs[place])
    if need > most:
        gpus = ceil(need / best.capacity) * best.gpus
        raise UsageError(
            f"at {curve.clock(place * demand.step_s)} the load needs {need:.3g} requests/s with a "
            f"reserve of {100 * options.reserve:.0f} %, and {options.gpus} GPUs take {most:.3g} "
            f"under the SLO: give --gpus {gpus}, a smaller --reserve or --scale, or a "
            "--power-budget to serve what can be"
        )
