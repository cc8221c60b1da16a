"""Tasks plan: one fleet for several tasks, each with replicas of its own, or all with the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from tuner.analysis.plan.operating_plan import Constant
from tuner.analysis.plan.plan_request import PlanRequest, curves_of
from tuner.analysis.plan.pools import Pool, shared_pools
from tuner.analysis.plan.proved_plan import ProvedPlan, pool_from, proved_together
from tuner.analysis.plan.simulation.proof import Proof
from tuner.analysis.plan.simulation.tallies import TaskProof
from tuner.analysis.plan.together import fit_together, together_j
from tuner.errors import NoFeasibleConfigurationError, TunerError, UsageError
from tuner.store import Store

_T = TypeVar("_T")


class Sharing(StrEnum):
    """Which replicas answer a task's requests."""

    OWN = "own replicas"  # with the configuration that was tuned for the task
    SHARED = "shared replicas"  # with one configuration that was measured under every task


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One way to serve the tasks: a plan for each of them, or one for them all."""

    sharing: Sharing
    plans: tuple[ProvedPlan, ...]

    @property
    def energy_j(self) -> float:
        """Energy of all GPUs, J: in simulation, or by the operating points if there is none."""
        proofs = _all([plan.proof for plan in self.plans])
        each = [p.plan.energy_j for p in self.plans] if proofs is None else _energies_j(proofs)
        return self._together_j(each)

    @property
    def fixed_j(self) -> float | None:
        """Energy of the better fleet that stays as it is, J; of those that keep the SLO if any."""
        known: list[tuple[bool, float]] = []
        for constants, proofs in (
            (_all([p.plan.static for p in self.plans]), [p.static_proof for p in self.plans]),
            ([p.plan.all_on for p in self.plans], [p.all_on_proof for p in self.plans]),
        ):
            if constants is None or not fit_together(constants, [p.plan for p in self.plans]):
                continue
            simulated = _all(proofs)
            holds = simulated is None or all(one.holds for one in simulated)
            each = _points_j(constants) if simulated is None else _energies_j(simulated)
            known.append((not holds, self._together_j(each)))
        return min(known)[1] if known else None

    @property
    def tasks(self) -> tuple[TaskProof, ...]:
        """What each task got in simulation; none without one."""
        return tuple(
            task for plan in self.plans if plan.proof is not None for task in plan.proof.tasks
        )

    def _together_j(self, energies_j: Sequence[float]) -> float:
        return together_j(energies_j, [plan.plan for plan in self.plans])


@dataclass(frozen=True, slots=True, eq=False)
class TasksPlan:
    """The ways to serve several tasks on the same GPUs, that of least energy first.

    `notes` say why a way is missing.
    """

    layouts: tuple[Layout, ...]
    gpus: int
    notes: tuple[str, ...]

    @property
    def best(self) -> Layout:
        """That of least energy."""
        return self.layouts[0]

    @property
    def fixed_j(self) -> float | None:
        """Energy of the best fleet that stays as it is, shared or not, J."""
        known = [j for one in self.layouts if (j := one.fixed_j) is not None]
        return min(known, default=None)

    @property
    def saved(self) -> float | None:
        """The share of that energy which the best way saves."""
        return None if self.fixed_j is None else 1.0 - self.best.energy_j / self.fixed_j

    @property
    def emulated(self) -> bool:
        """Whether any operating point is."""
        return any(plan.emulated for plan in self.best.plans)


def tasks_plan(store: Store, request: PlanRequest) -> TasksPlan:
    """Return the ways to serve several loads with as many studies, on the same arrivals.

    Raises `UsageError` for pairs that do not go together, and as `proved_plan`.
    """
    _require_pairs(request)
    curves, judges = curves_of(request)
    pools = [
        pool_from(store, request, [study], curve, judge)
        for study, curve, judge in zip(request.studies, curves, judges, strict=True)
    ]
    _require_different(pools, request)
    request = replace(request, reserve=request.first_reserve)  # the same for every way
    layouts, notes = [], []
    refusals = []
    for sharing, ways in ((Sharing.OWN, [pools]), (Sharing.SHARED, _shared_ways(pools))):
        proved, why = _best_of(ways, request)
        if proved is not None:
            layouts.append(Layout(sharing, proved))
            continue
        notes.append(f"{sharing} for the tasks: {why or _why_none(pools)}")
        refusals.append(why is None or isinstance(why, UsageError))
    if not layouts:
        kind = UsageError if all(refusals) else NoFeasibleConfigurationError
        raise kind(f"no plan serves the tasks: {'; '.join(notes)}")
    layouts.sort(key=lambda one: one.energy_j)
    return TasksPlan(tuple(layouts), request.gpus, tuple(notes))


def _require_pairs(request: PlanRequest) -> None:
    if len(request.studies) != len(request.loads):
        raise UsageError(
            f"--load is given {len(request.loads)} times and --study {len(request.studies)}: give "
            "one study for each load, in the same order (--study chat --load chat.csv --study code "
            "--load code.csv)"
        )
    if request.power_budget_w is not None:
        raise UsageError(
            "--power-budget is for one load: plan each task with its own part of the budget"
        )


def _require_different(pools: Sequence[Pool], request: PlanRequest) -> None:
    first = pools[0]
    for number, pool in enumerate(pools[1:], 1):
        if pool.gpu != first.gpu:
            raise UsageError(
                f"study '{request.studies[0]}' is of {first.gpu} and '{request.studies[number]}' "
                f"of {pool.gpu}: a fleet has GPUs of one kind, plan each kind with its own --gpus"
            )
    known: dict[str, str] = {}
    for study, pool in zip(request.studies, pools, strict=True):
        if pool.tasks[0] in known:
            raise UsageError(
                f"studies '{known[pool.tasks[0]]}' and '{study}' are both of the workload "
                f"{pool.tasks[0]}: add their loads up, and give one --load with both studies"
            )
        known[pool.tasks[0]] = study


def _shared_ways(pools: Sequence[Pool]) -> list[list[Pool]]:
    return [[pool] for pool in shared_pools(pools)]


def _best_of(
    ways: Sequence[Sequence[Pool]], request: PlanRequest
) -> tuple[tuple[ProvedPlan, ...] | None, TunerError | None]:
    """Return the plans of least energy, and else why there are none."""
    found: list[tuple[ProvedPlan, ...]] = []
    why: TunerError | None = None
    for pools in ways:
        try:
            found.append(proved_together(pools, request))
        except (UsageError, NoFeasibleConfigurationError) as error:
            why = error
    best = min(found, key=lambda plans: Layout(Sharing.OWN, plans).energy_j, default=None)
    return best, why


def _why_none(pools: Sequence[Pool]) -> str:
    if len({pool.model for pool in pools}) > 1:
        return "the tasks have not the same model"
    return (
        "no configuration has operating points under every task; run the studies with the same "
        "--space, where at least the default has them"
    )


def _all(values: Sequence[_T | None]) -> list[_T] | None:
    """Return the values if all are known."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _energies_j(proofs: Sequence[Proof]) -> list[float]:
    return [proof.energy_j for proof in proofs]


def _points_j(constants: Sequence[Constant]) -> list[float]:
    return [constant.energy_j for constant in constants]
