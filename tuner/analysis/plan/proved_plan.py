"""Proved plan: a plan that kept the SLO in simulation, with the router that used least energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from tuner.analysis.plan.demand import demand_of
from tuner.analysis.plan.operating_plan import OperatingPlan
from tuner.analysis.plan.plan_request import PlanRequest, curves_of
from tuner.analysis.plan.pools import Pool, task_pool
from tuner.analysis.plan.simulation.proof import Proof, prove, prove_constant
from tuner.analysis.plan.simulation.scene import Scene
from tuner.analysis.plan.simulation.tallies import enough
from tuner.analysis.plan.together import Wanted, plans_together
from tuner.emulator.fleet.routing import Routing
from tuner.errors import NoFeasibleConfigurationError, UsageError
from tuner.load.day.rate_curve import RateCurve
from tuner.slo import Slo
from tuner.store import Store

_MORE_RESERVE = 0.1
_LITTLE_MORE = 0.05
_MOST_ATTEMPTS = 5
_NEAR = 1.01  # of the least energy: the router that kept the SLO best is taken then
_OTHER_SEED = 1_000  # of the arrivals that a plan is given to prove itself on
_COMPARED_SHARE = 4  # a comparison of routers simulates this part of a proof's requests


@dataclass(frozen=True, slots=True, eq=False)
class ProvedPlan:
    """A plan and what it did in simulation.

    Attributes:
        tasks: whose requests it serves.
        slos: of all tasks.
        proof: None if it could not be simulated; `notes` say why.
        static_proof, all_on_proof: the same for the fleets that stay as they are.
        routings: each router on the same arrivals, a part of the proof's; empty if it was given.
        judged_on: the load that the proof is of.
    """

    plan: OperatingPlan
    tasks: tuple[str, ...]
    slos: tuple[Slo, ...]
    proof: Proof | None
    static_proof: Proof | None
    all_on_proof: Proof | None
    routings: tuple[Proof, ...]
    judged_on: str
    notes: tuple[str, ...]
    emulated: bool

    @property
    def fixed_proof(self) -> Proof | None:
        """The fleet that stays as it is and used less in simulation: the static one, or all on."""
        known = [one for one in (self.static_proof, self.all_on_proof) if one is not None]
        holding = [one for one in known if one.holds] or known
        return min(holding, key=lambda one: one.energy_j, default=None)

    @property
    def saved(self) -> float | None:
        """The share of the best fixed fleet's energy saved; in simulation if there is one."""
        if self.proof is None or self.fixed_proof is None:
            return self.plan.saved
        return 1.0 - self.proof.energy_j / self.fixed_proof.energy_j


def proved_plan(store: Store, request: PlanRequest) -> ProvedPlan:
    """Return the plan of least energy for one load that keeps the SLO in simulation.

    One that fails there gets more reserve. Raises `UsageError` for a load or a study of which no
    plan can be made, `NoFeasibleConfigurationError` if no plan held the SLO.
    """
    (curve,), (judge,) = curves_of(request)
    pool = pool_from(store, request, request.studies, curve, judge)
    return proved_together([pool], request)[0]


def pool_from(
    store: Store,
    request: PlanRequest,
    studies: Sequence[str],
    curve: RateCurve,
    judge: RateCurve,
) -> Pool:
    """Return the pool of one task."""
    return task_pool(
        store,
        studies,
        curve,
        judge,
        simulated=request.simulated,
        seed=request.seed + _OTHER_SEED,
        mixes_answers=request.mixes_answers,
    )


def proved_together(pools: Sequence[Pool], request: PlanRequest) -> tuple[ProvedPlan, ...]:
    """Return a plan for each pool; together they fit on the GPUs, and each keeps its SLOs.

    Raises as `proved_plan`.
    """
    found = _held(pools, request)
    if request.reserve is None and len(pools) == 1:
        return (_with_less(found[0], pools[0], request),)
    return found


def _held(pools: Sequence[Pool], request: PlanRequest) -> tuple[ProvedPlan, ...]:
    """Return plans that keep their SLOs, with more reserve in hours that did not at first."""
    more_in: list[dict[int, float]] = [{} for _ in pools]
    said: list[list[str]] = [list(pool.notes) for pool in pools]
    plans = _planned(pools, request.first_reserve, more_in, request)
    scenes = [pool.scene for pool in pools]
    routings: list[tuple[Proof, ...]] = [() for _ in pools]
    if request.routing is None:
        routings = [
            () if s is None else _compared(p, s, _offered(p, pool))
            for p, s, pool in zip(plans, scenes, pools, strict=True)
        ]
    for _ in range(_MOST_ATTEMPTS):
        proofs = [
            None
            if scene is None
            else prove(
                plan, scene, _offered(plan, pool), request.routing or router_with_margin(own)
            )
            for plan, scene, pool, own in zip(plans, scenes, pools, routings, strict=True)
        ]
        failed = [n for n, proof in enumerate(proofs) if proof is not None and not proof.holds]
        if not failed:
            return tuple(
                _with_fixed(plan, pool, proof, own, notes)
                for plan, pool, proof, own, notes in zip(
                    plans, pools, proofs, routings, said, strict=True
                )
            )
        missed = [_missed(proofs[n]) for n in failed]
        hours = {n: _hours_to_help(proofs[n], plans[n]) for n in failed}
        try:
            plans = _with_more(pools, more_in, hours, plans, request)
        except UsageError as error:
            raise _none_held(f"{missed[0]}, and more reserve cannot be had ({error})") from None
        for number, text in zip(failed, missed, strict=True):
            own = more_in[number]
            added = f"up to {100 * max(own.values()):.0f} % more reserve in {len(own)} hours"
            request.note(f"{text}: planned again with {added}")
            said[number].append(f"{text}: it has {added}")
    raise _none_held(missed[0])


def _with_more(
    pools: Sequence[Pool],
    more_in: Sequence[dict[int, float]],
    hours: Mapping[int, Sequence[int]],
    plans: Sequence[OperatingPlan],
    request: PlanRequest,
) -> tuple[OperatingPlan, ...]:
    """Return plans with so much more reserve in the hours that missed that one of them changes.

    `hours` are those of each pool that failed; what they get is added to `more_in`.
    """
    while True:
        for number, own in hours.items():
            for hour in own:
                more_in[number][hour] = more_in[number].get(hour, 0.0) + _MORE_RESERVE
        found = _planned(pools, request.first_reserve, more_in, request)
        if any(_differs(found[n], plans[n]) for n in hours):
            return found


def _hours_to_help(proof: Proof | None, plan: OperatingPlan) -> list[int]:
    """Return the hours that missed, and those in which no more runs than in them.

    The fewer replicas share a load, the less even it is; a quiet hour that held by luck does not on
    another day.
    """
    assert proof is not None
    missed = {h.number for task in proof.tasks for h in task.hours if not task.is_met(h)}
    takes = plan.running @ np.array([kind.capacity for kind in plan.types])
    by_hour: dict[int, float] = {}
    for interval, capacity in enumerate(takes.tolist()):
        hour = plan.demand.hour_of(interval)
        by_hour[hour] = max(by_hour.get(hour, 0.0), capacity)
    most = max(by_hour[hour] for hour in missed)
    return [hour for hour, capacity in by_hour.items() if capacity <= most]


def _differs(plan: OperatingPlan, other: OperatingPlan) -> bool:
    """Say whether another fleet runs, or a power budget lets in another part of the load."""
    same_fleet = np.array_equal(plan.running, other.running)
    return not (same_fleet and np.array_equal(plan.served, other.served))


def _none_held(why: str) -> NoFeasibleConfigurationError:
    return NoFeasibleConfigurationError(
        f"no plan kept the SLO in simulation: {why}; give more --gpus, a day for --load that is "
        "more like the one it is judged on, or a larger --reserve"
    )


def _planned(
    pools: Sequence[Pool],
    reserve: float,
    more_in: Sequence[Mapping[int, float]],
    request: PlanRequest,
) -> tuple[OperatingPlan, ...]:
    wanted = [
        Wanted(p.types, p.curve, reserve, dict(m)) for p, m in zip(pools, more_in, strict=True)
    ]
    return plans_together(wanted, request.options)


def _offered(plan: OperatingPlan, pool: Pool) -> tuple[RateCurve, ...]:
    """Return what comes on the day that a plan is proved on; under a budget what is let in."""
    if len(pool.judges) > 1:
        return pool.judges
    return (plan.admitted(pool.judges[0]),)


def _missed(proof: Proof | None) -> str:
    assert proof is not None
    weakest = proof.weakest
    of_task = f" of {weakest.task}" if len(proof.tasks) > 1 else ""
    worst = weakest.worst
    wanted = enough(weakest.needed, worst.requests)
    if worst.missed and worst.attainment >= wanted:
        return f"{', '.join(worst.missed)}{of_task} was missed in hour {worst.number}"
    return (
        f"only {100 * worst.attainment:.2f} % of the {worst.requests} requests{of_task} met the "
        f"SLO in hour {worst.number} ({100 * wanted:.2f} % of so many are wanted, for "
        f"{100 * weakest.needed:.0f} % on other traffic)"
    )


def _with_less(found: ProvedPlan, pool: Pool, request: PlanRequest) -> ProvedPlan:
    """Return the plan with no more reserve than a fleet that stays as it is and keeps the SLO.

    Where a plan with as little does not, or uses no less energy, it gets a little more.
    """
    first, plan = found.proof, found.plan
    known = ((plan.static, found.static_proof), (plan.all_on, found.all_on_proof))
    takes = [
        c.capacity(plan.types) for c, p in known if c is not None and p is not None and p.holds
    ]
    if first is None or not takes:
        return found
    peak = float(demand_of(pool.curve, plan.demand.step_s, 0.0).needs.max())
    its = min(takes) / peak - 1.0
    for more in range(_MOST_ATTEMPTS):
        reserve = its + more * _LITTLE_MORE
        if reserve >= plan.options.reserve:
            break
        try:
            (other,) = _held([pool], replace(request, reserve=reserve, routing=first.routing))
        except (UsageError, NoFeasibleConfigurationError):
            continue
        if other.proof is not None and other.proof.energy_j < first.energy_j:
            text = (
                f"begun with a reserve of {100 * reserve:.0f} %: a fleet that stays as it is keeps "
                f"the SLO with {100 * its:.0f} %; --reserve decides otherwise"
            )
            return replace(other, routings=found.routings, notes=(*other.notes, text))
    return found


def _with_fixed(
    plan: OperatingPlan,
    pool: Pool,
    proof: Proof | None,
    routings: tuple[Proof, ...],
    notes: Sequence[str],
) -> ProvedPlan:
    """Return the plan beside the fleets that stay as they are, on the same arrivals."""
    static: Proof | None = None
    on: Proof | None = None
    scene, offered = pool.scene, _offered(plan, pool)
    if proof is not None and scene is not None:
        if plan.static is not None:
            static = prove_constant(plan, plan.static, scene, offered, proof.routing)
        on = prove_constant(plan, plan.all_on, scene, offered, proof.routing)
    return ProvedPlan(
        plan=plan,
        tasks=pool.tasks,
        slos=tuple(dict.fromkeys(slo for own in pool.slos for slo in own)),
        proof=proof,
        static_proof=static,
        all_on_proof=on,
        routings=routings,
        judged_on="" if proof is None else " + ".join(one.source for one in pool.judges),
        notes=tuple(notes),
        emulated=pool.emulated,
    )


def _compared(plan: OperatingPlan, scene: Scene, offered: Sequence[RateCurve]) -> tuple[Proof, ...]:
    """Simulate each router on the same part of the arrivals."""
    smaller = replace(scene, requests=max(1, scene.requests // _COMPARED_SHARE))
    return tuple(prove(plan, smaller, offered, routing) for routing in Routing)


def router_with_margin(routings: Sequence[Proof]) -> Routing:
    """Return the router that kept the SLO best, of those that held it with about the least energy.

    Without one that held it, that which came nearest.
    """
    holding = [one for one in routings if one.holds]
    least_j = min((one.energy_j for one in holding), default=inf)
    near = [one for one in holding if one.energy_j <= least_j * _NEAR]
    return max(near or routings, key=lambda one: one.worst.attainment).routing
