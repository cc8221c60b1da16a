"""An operating plan as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tuner.analysis.plan.operating_plan import Constant
from tuner.analysis.plan.proved_plan import ProvedPlan
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.analysis.plan.simulation.proof import Proof
from tuner.analysis.plan.simulation.tallies import TaskProof
from tuner.analysis.plan.tasks_plan import Layout, TasksPlan


def tasks_json(found: TasksPlan) -> dict[str, Any]:
    """Return a plan for several tasks: the ways to serve them, the chosen one first."""
    return {
        "gpus": found.gpus,
        "chosen": found.best.sharing,
        "ways": [_way_json(way) for way in found.layouts],
        "fixed_j": found.fixed_j,
        "saved": found.saved,
        "notes": list(found.notes),
        "emulated": found.emulated,
    }


def _way_json(way: Layout) -> dict[str, Any]:
    return {
        "replicas": way.sharing,
        "energy_j": way.energy_j,
        "fixed_j": way.fixed_j,
        "plans": [plan_json(plan) for plan in way.plans],
    }


def plan_json(found: ProvedPlan) -> dict[str, Any]:
    """Return the plan as plain data. Powers are W, energies J, rates requests/s, times s."""
    plan = found.plan
    return {
        "gpus": plan.options.gpus,
        "tasks": list(found.tasks),
        "load": plan.curve.source,
        "starts_at": None if plan.curve.starts_at is None else plan.curve.starts_at.isoformat(),
        "step_s": plan.demand.step_s,
        "dwell_s": plan.options.dwell_s,
        "reserve": plan.options.reserve,
        "power_budget_w": plan.options.power_budget_w,
        "exact": plan.is_exact,
        "slos": [slo.text for slo in found.slos],
        "types": [_type_json(kind) for kind in plan.types],
        "intervals": [
            {
                "start_s": number * plan.demand.step_s,
                "request_rate": float(plan.demand.rates[number]),
                "served_rate": float(plan.served[number]),
                "running": plan.running[number].tolist(),
                "asleep": plan.asleep[number].tolist(),
                "power_w": float(plan.power_w[number]),
            }
            for number in range(plan.demand.intervals)
        ],
        "actions": [{**asdict(one), "type": plan.types[one.kind].name} for one in plan.actions],
        "by_operating_points": {
            "energy_j": plan.energy_j,
            "static": _constant_json(plan.static),
            "all_on": _constant_json(plan.all_on),
        },
        "simulation": None if found.proof is None else _simulation_json(found),
        "saved": found.saved,
        "notes": list(found.notes),
        "emulated": found.emulated,
    }


def _type_json(kind: ReplicaType) -> dict[str, Any]:
    return {
        "name": kind.name,
        "study": kind.study,
        "trial": kind.trial,
        "configuration": kind.configuration.to_json(),
        "gpus": kind.gpus,
        "capacity": kind.capacity,
        "points": [
            {"request_rate": p.rate, "power_w": p.power_w, "low_w": p.low_w, "high_w": p.high_w}
            for p in kind.points
        ],
        "idle_w": kind.idle_w,
        "off_w": kind.off_w,
        "start_s": kind.start_s,
        "start_energy_j": kind.start_energy_j,
        "sleep": None if kind.sleep is None else asdict(kind.sleep),
        "estimated": list(kind.estimated),
    }


def _constant_json(constant: Constant | None) -> dict[str, Any] | None:
    return None if constant is None else asdict(constant)


def _simulation_json(found: ProvedPlan) -> dict[str, Any]:
    proofs = {"plan": found.proof, "static": found.static_proof, "all_on": found.all_on_proof}
    return {
        "judged_on": found.judged_on,
        **{name: None if one is None else _proof_json(one) for name, one in proofs.items()},
        "routings": [_proof_json(one) for one in found.routings],
    }


def _proof_json(proof: Proof) -> dict[str, Any]:
    """Return a proof; its latencies are those of the task that came off worst."""
    weakest = proof.weakest
    return {
        "routing": proof.routing,
        "hours": [{**asdict(hour), "attainment": hour.attainment} for hour in proof.hours],
        "energy_j": proof.energy_j,
        "needed": weakest.needed,
        "simulated_s": proof.simulated_s,
        "day_s": proof.day_s,
        "p50_ttft_ms": weakest.p50_ttft_ms,
        "p99_ttft_ms": weakest.p99_ttft_ms,
        "p99_tpot_ms": weakest.p99_tpot_ms,
        "requests": proof.requests,
        "holds": proof.holds,
        "tasks": [_task_json(task) for task in proof.tasks],
    }


def _task_json(task: TaskProof) -> dict[str, Any]:
    hours = [{**asdict(hour), "attainment": hour.attainment} for hour in task.hours]
    return {**asdict(task), "hours": hours, "holds": task.holds}
