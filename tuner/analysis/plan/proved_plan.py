"""Proved plan: a plan that kept the SLO in simulation, with the router that used least energy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

import numpy as np

from tuner.analysis.plan.demand import demand_of
from tuner.analysis.plan.operating_plan import DWELL_S, RESERVE, STEP_S, OperatingPlan, PlanOptions
from tuner.analysis.plan.pools import Pool, task_pool
from tuner.analysis.plan.simulation.proof import Proof, prove, prove_constant
from tuner.analysis.plan.simulation.scene import REQUESTS, Scene
from tuner.analysis.plan.simulation.tallies import enough
from tuner.analysis.plan.together import Wanted, plans_together
from tuner.emulator.fleet.routing import Routing
from tuner.errors import NoFeasibleConfigurationError, UsageError
from tuner.load.day.rate_curve import RateCurve, alike
from tuner.load.day.read import DayFormat, read_day
from tuner.slo import Slo
from tuner.store import Store

_MORE_RESERVE = 0.1
_LITTLE_MORE = 0.05
_MOST_ATTEMPTS = 5
_NEAR = 1.01  # of the least energy: the router that kept the SLO best is taken then
_SAME_S = 1e-3
_OTHER_SEED = 1_000  # of the arrivals that a plan is given to prove itself on
_COMPARED_SHARE = 4  # a comparison of routers simulates this part of a proof's requests


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a plan is asked for; see `tuner plan --help`.

    Attributes:
        studies: with operating points; of one workload for a single load, else one for each load.
        loads: the file of a day for each task.
        judges: those of another day, to prove the plan on; empty for the same one, drawn anew.
        scale: every rate times this.
        reserve: None begins with 15 %, and takes less where a fleet that stays as it is does.
        routing: None compares them all.
        simulated: about how many requests of a task to simulate for a proof; 0 proves nothing.
        note: is told of the progress.
        mixes_answers: whether thinking, or the steps of pictures, may change by the hour.
    """

    studies: Sequence[str]
    loads: Sequence[Path]
    gpus: int
    load_format: DayFormat | None = None
    scale: float = 1.0
    judges: Sequence[Path] = ()
    step_s: float = STEP_S
    dwell_s: float = DWELL_S
    reserve: float | None = None
    routing: Routing | None = None
    power_budget_w: float | None = None
    simulated: int = REQUESTS
    seed: int = 0
    note: Callable[[str], None] = field(default=lambda _: None)
    mixes_answers: bool = False

    @property
    def first_reserve(self) -> float:
        """The reserve that planning begins with."""
        return RESERVE if self.reserve is None else self.reserve

    @property
    def options(self) -> PlanOptions:
        """What is asked of the schedule."""
        return PlanOptions(
            gpus=self.gpus,
            step_s=self.step_s,
            reserve=self.first_reserve,
            dwell_s=self.dwell_s,
            power_budget_w=self.power_budget_w,
        )


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


def curves_of(request: PlanRequest) -> tuple[tuple[RateCurve, ...], tuple[RateCurve, ...]]:
    """Return the loads, and those that the plan is proved on; each in the same steps.

    Raises `UsageError` for a file that is no load, and for loads of different hours.
    """

    def read(paths: Sequence[Path]) -> tuple[RateCurve, ...]:
        found = [read_day(path, request.load_format).scaled(request.scale) for path in paths]
        return alike(found)

    curves = read(request.loads)
    if not request.judges:
        return curves, curves
    if len(request.judges) != len(request.loads):
        raise UsageError(
            f"--judge is given {len(request.judges)} times and --load {len(request.loads)}: give "
            "another day for each load, in the same order"
        )
    judges = read(request.judges)
    for curve, judge in zip(curves, judges, strict=True):
        _require_same_hours(curve, judge)
    return curves, judges


def _require_same_hours(curve: RateCurve, judge: RateCurve) -> None:
    if abs(curve.length_s - judge.length_s) > _SAME_S:
        raise UsageError(
            f"{judge.source} lasts {judge.length_s / 3600:.4g} h and {curve.source} "
            f"{curve.length_s / 3600:.4g} h: give a --judge of the same hours"
        )
    begins = [None if c.starts_at is None else c.starts_at.time() for c in (curve, judge)]
    if None not in begins and begins[0] != begins[1]:
        raise UsageError(
            f"{judge.source} begins at {begins[1]} and {curve.source} at {begins[0]}: give a "
            "--judge of the same hours"
        )


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
            found = tuple(
                _with_fixed(plan, pool, proof, own, notes)
                for plan, pool, proof, own, notes in zip(
                    plans, pools, proofs, routings, said, strict=True
                )
            )
            if request.reserve is None and len(pools) == 1:
                return (_with_less(found[0], pools[0], request),)
            return found
        missed = [_missed(proofs[n]) for n in failed]
        hours = {n: _hours_missed(proofs[n]) for n in failed}
        try:
            plans = _with_more(pools, more_in, hours, plans, request)
        except UsageError as error:
            raise _none_held(f"{missed[0]}, and more reserve cannot be had ({error})") from None
        for number, text in zip(failed, missed, strict=True):
            added = ", ".join(f"{more_in[number][h]:.0%} in hour {h}" for h in hours[number])
            request.note(f"{text}: planned again with more reserve, {added}")
            said[number].append(f"{text}: it has more reserve, {added}")
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


def _hours_missed(proof: Proof | None) -> list[int]:
    assert proof is not None
    missed = {h.number for task in proof.tasks for h in task.hours if not task.is_met(h)}
    return sorted(missed)


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
        f"only {worst.attainment:.2%} of the {worst.requests} requests{of_task} met the SLO in "
        f"hour {worst.number} ({wanted:.2%} of so many are wanted, for {weakest.needed:.0%} on "
        "other traffic)"
    )


def _with_less(found: ProvedPlan, pool: Pool, request: PlanRequest) -> ProvedPlan:
    """Return the plan with no more reserve than a fleet that stays as it is and uses less.

    Such a fleet kept the SLO with that reserve at the highest load. Where a plan with as little
    does not, it gets a little more.
    """
    fixed, first = found.fixed_proof, found.proof
    if first is None or pool.scene is None or fixed is None:
        return found
    if not fixed.holds or fixed.energy_j >= first.energy_j:
        return found
    peak = float(demand_of(pool.curve, found.plan.demand.step_s, 0.0).needs.max())
    constant = found.plan.all_on if fixed is found.all_on_proof else found.plan.static
    assert constant is not None
    its = constant.capacity(found.plan.types) / peak - 1.0
    for more in range(_MOST_ATTEMPTS):
        reserve = its + more * _LITTLE_MORE
        if reserve >= found.plan.options.reserve:
            break
        (plan,) = _planned([pool], reserve, [{}], request)
        proof = prove(plan, pool.scene, _offered(plan, pool), first.routing)
        if proof.holds and proof.energy_j < first.energy_j:
            text = (
                f"with a reserve of {reserve:.0%}: a fleet that stays as it is keeps the SLO with "
                f"{its:.0%}, and uses less than the plan with {found.plan.options.reserve:.0%}; "
                "--reserve decides otherwise"
            )
            return _with_fixed(plan, pool, proof, found.routings, [*found.notes, text])
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
