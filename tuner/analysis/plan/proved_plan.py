"""Proved plan: a plan that kept the SLO in simulation, with the router that used least energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.analysis.plan.operating_plan import DWELL_S, RESERVE, STEP_S, OperatingPlan, PlanOptions
from tuner.analysis.plan.operating_plan import make_plan as planned
from tuner.analysis.plan.operating_points import replica_types
from tuner.analysis.plan.proof import REQUESTS, Proof, Scene, prove, prove_constant
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.gpu_names import emulated_gpu
from tuner.catalog.model import load_model
from tuner.emulator.fleet.routing import Routing
from tuner.errors import NoFeasibleConfigurationError, UsageError
from tuner.load.day.rate_curve import RateCurve
from tuner.load.day.read import DayFormat, read_day
from tuner.load.workload import load_workload
from tuner.slo import Slo
from tuner.spec.stored import StoredSpec
from tuner.store import Store, StudyIdentity

_MORE_RESERVE = 0.1
_MOST_ATTEMPTS = 5
_OTHER_SEED = 1_000  # of the arrivals that a plan is given to prove itself on
_COMPARED_SHARE = 4  # a comparison of routers simulates this part of a proof's requests
_JUDGED = ("ttft_ms", "tpot_ms", "e2el_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a plan is asked for; see `tuner plan --help`.

    Attributes:
        studies: of one model and workload, with operating points.
        load: the file of a day; `judge` is that of another day, to prove the plan on.
        scale: every rate times this.
        routing: None compares them all.
        simulated: about how many requests to simulate for a proof; 0 proves nothing.
        note: is told of the progress.
        mixes_answers: whether thinking, or the steps of pictures, may change by the hour.
    """

    studies: Sequence[str]
    load: Path
    gpus: int
    load_format: DayFormat | None = None
    scale: float = 1.0
    judge: Path | None = None
    step_s: float = STEP_S
    dwell_s: float = DWELL_S
    reserve: float = RESERVE
    routing: Routing | None = None
    power_budget_w: float | None = None
    simulated: int = REQUESTS
    seed: int = 0
    note: Callable[[str], None] = field(default=lambda _: None)
    mixes_answers: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ProvedPlan:
    """A plan and what it did in simulation.

    Attributes:
        proof: None if it could not be simulated; `notes` say why.
        static_proof, all_on_proof: the same for the fleets that stay as they are.
        routings: each router on the same arrivals, a part of the proof's; empty if it was given.
        judged_on: the load that the proof is of.
    """

    plan: OperatingPlan
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
    """Return the plan of least energy that keeps the SLO in simulation.

    One that fails there gets more reserve. Raises `UsageError` for a load or a study of which no
    plan can be made, `NoFeasibleConfigurationError` if no plan held the SLO.
    """
    types, study = _types(store, request)
    slos = tuple(Slo.parse(text) for text in study.slos)
    curve = read_day(request.load, request.load_format).scaled(request.scale)
    judge = curve
    if request.judge is not None:
        judge = read_day(request.judge, request.load_format).scaled(request.scale)
    scene, said = _scene(study, slos, request, types)
    plan = planned(types, curve, _options(request, request.reserve))
    said += [f"{t.name}: estimated: {e}" for t in types for e in t.estimated]
    is_emulated = study.evaluation == "virtual"
    if scene is None:
        return ProvedPlan(plan, slos, None, None, None, (), "", tuple(said), is_emulated)
    routings: tuple[Proof, ...] = ()
    if request.routing is None:
        routings = _compared(plan, scene, plan.admitted(judge))
    routing = request.routing or _best(routings)
    reserve = request.reserve
    for _ in range(_MOST_ATTEMPTS):
        offered = plan.admitted(judge)
        proof = prove(plan, scene, offered, routing)
        if proof.holds:
            static: Proof | None = None
            if plan.static is not None:
                static = prove_constant(plan, plan.static, scene, offered, routing)
            on = prove_constant(plan, plan.all_on, scene, offered, routing)
            source, notes = judge.source, tuple(said)
            return ProvedPlan(plan, slos, proof, static, on, routings, source, notes, is_emulated)
        worst = proof.worst
        reserve += _MORE_RESERVE
        missed = (
            f"with a reserve of {reserve - _MORE_RESERVE:.0%} only {worst.attainment:.1%} of the "
            f"requests met the SLO in hour {worst.number}"
        )
        request.note(f"{missed}: planned again with {reserve:.0%}")
        said.append(f"{missed}, so it has {reserve:.0%}")
        plan = planned(types, curve, _options(request, reserve))
    raise NoFeasibleConfigurationError(
        f"no plan kept the SLO in simulation: {missed}; give more --gpus, a day for --load that is "
        "more like the one it is judged on, or a larger --reserve"
    )


def _options(request: PlanRequest, reserve: float) -> PlanOptions:
    return PlanOptions(
        gpus=request.gpus,
        step_s=request.step_s,
        reserve=reserve,
        dwell_s=request.dwell_s,
        power_budget_w=request.power_budget_w,
    )


def _types(store: Store, request: PlanRequest) -> tuple[list[ReplicaType], StudyIdentity]:
    """Return the types of all studies. Raises `UsageError` if these do not go together."""
    studies = [store.study(name) for name in dict.fromkeys(request.studies)]
    first = studies[0]
    for other in studies[1:]:
        for what, differs in (
            ("model", other.model != first.model),
            ("workload", other.workload_sha256 != first.workload_sha256),
            ("SLO", set(other.slos) != set(first.slos)),
            ("GPU", other.gpu != first.gpu),
        ):
            if differs:
                raise UsageError(
                    f"studies '{first.name}' and '{other.name}' have not the same {what}, so one "
                    "load cannot be spread over both: plan each with its own --load"
                )
    mixes = request.mixes_answers
    types = [t for s in studies for t in replica_types(store, s.name, mixes_answers=mixes)]
    return types, first


def _scene(
    study: StudyIdentity,
    slos: tuple[Slo, ...],
    request: PlanRequest,
    types: Sequence[ReplicaType],
) -> tuple[Scene | None, list[str]]:
    """Return what to simulate, and what is to be said; None if the emulator lacks something."""
    if request.simulated == 0:
        return None, ["not proved in simulation, as was asked for"]
    if any(t.configuration.asked != types[0].configuration.asked for t in types):
        return None, [
            "not proved in simulation, whose requests are the same at every replica: here answers "
            "change by the hour"
        ]
    spec = StoredSpec.of(study)
    gpu: Gpu | None
    try:
        asked = spec.asked.get("engine")
        gpu = emulated_gpu(study.gpu) if spec.emulate is None else load_gpu(spec.emulate, asked)
        model, workload = load_model(study.model), load_workload(spec.workload or "chat")
    except UsageError as error:
        return None, [f"not proved in simulation: {error}"]
    if gpu is None:
        return None, [f"not proved in simulation: the emulator does not know {study.gpu}"]
    notes = [
        f"{slo} is not judged in simulation, which counts requests by TTFT, TPOT and E2EL"
        for slo in slos
        if slo.metric.partition("_")[2] not in _JUDGED
    ]
    seed = request.seed + _OTHER_SEED
    return Scene(model, gpu, workload, slos, request.simulated, seed), notes


def _compared(plan: OperatingPlan, scene: Scene, judge: RateCurve) -> tuple[Proof, ...]:
    """Simulate each router on the same part of the arrivals."""
    smaller = replace(scene, requests=max(1, scene.requests // _COMPARED_SHARE))
    return tuple(prove(plan, smaller, judge, routing) for routing in Routing)


def _best(routings: Sequence[Proof]) -> Routing:
    """Return the router of least energy among those that held the SLO best."""
    holding = [one for one in routings if one.holds]
    if holding:
        return min(holding, key=lambda one: one.energy_j).routing
    return max(routings, key=lambda one: one.worst.attainment).routing
