"""An operating plan for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from tuner.analysis.plan.operating_plan import Action, Constant, OperatingPlan
from tuner.analysis.plan.proved_plan import ProvedPlan
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.analysis.plan.simulation.proof import Proof
from tuner.analysis.plan.simulation.tallies import TaskProof
from tuner.report.terminal.front_table import heading

_J_PER_KWH = 3.6e6
_SHORT = 60  # actions in a table; JSON has all


def show_plan(console: Console, found: ProvedPlan) -> None:
    """Print what runs when, what it saves, and how it did in simulation."""
    plan = found.plan
    where = f"{plan.curve.source}, {plan.options.gpus} GPUs"
    console.print(heading(f"Operating plan for {where}", "emulated" if found.emulated else ""))
    show_plan_body(console, found)


def show_plan_body(console: Console, found: ProvedPlan) -> None:
    """Print a plan without its heading."""
    for line in _summary(found):
        console.print(line, highlight=False)
    console.print(_hours_table(found))
    console.print(_actions_table(found.plan))
    if len(found.routings) > 1:
        console.print(_routing_table(found.routings))
    for note in found.notes:
        console.print(f"note: {note}", highlight=False)


def replicas_text(types: Sequence[ReplicaType], counts: Sequence[int]) -> str:
    """Return how many replicas of each type there are, in words."""
    said = [f"{n} x {t.name}" for n, t in zip(counts, types, strict=True) if n]
    return " + ".join(said) or "none"


def action_text(plan: OperatingPlan, action: Action) -> str:
    """Return an action in words."""
    replicas = "replica" if action.count == 1 else "replicas"
    return f"{action.move} {action.count} {replicas} of {plan.types[action.kind].name}"


def clock(plan: OperatingPlan, at_s: float) -> str:
    """Return a time of the plan; one before its begin is that of the day before."""
    length_s = plan.curve.length_s
    return plan.curve.clock(at_s if at_s >= 0.0 else at_s + length_s)


def latencies(task: TaskProof) -> tuple[str, str, str]:
    """Return the cells p50 TTFT, p99 TTFT and p99 TPOT, ms."""
    return f"{task.p50_ttft_ms:.0f}", f"{task.p99_ttft_ms:.0f}", f"{task.p99_tpot_ms:.1f}"


def kwh(energy_j: float) -> str:
    """Return an energy in kWh, for people."""
    return f"{energy_j / _J_PER_KWH:.3g} kWh"


def _summary(found: ProvedPlan) -> Iterator[str]:
    plan, proof = found.plan, found.proof
    yield f"by the operating points: {kwh(plan.energy_j)}; {_beside(plan.static, plan.all_on)}"
    if proof is not None:
        fixed = found.fixed_proof
        saved = ""
        if found.saved is not None and fixed is not None and found.saved <= 0.0:
            saved = (
                f"; a fleet that stays as it is uses no more ({kwh(fixed.energy_j)}): leave it as "
                "it is"
            )
        elif found.saved is not None and fixed is not None:
            saved = (
                f", {100 * found.saved:.0f} % less than the best fleet that stays as it is "
                f"({kwh(fixed.energy_j)})"
            )
        all_on = found.all_on_proof
        on = "" if all_on is None else f", all on {kwh(all_on.energy_j)}"
        yield f"in simulation (emulated): {kwh(proof.energy_j)}{saved}{on}"
        for task in proof.tasks:
            yield _slo_text(task, of_task=f" of {task.task}" if len(proof.tasks) > 1 else "")
        share = proof.simulated_s / proof.day_s
        yield (
            f"simulated: {proof.simulated_s / 3600:.1f} h of {proof.day_s / 3600:.0f} h "
            f"({100 * share:.1f} %: of each hour the stretch that fills the fleet most), "
            f"on {found.judged_on}"
        )
        yield f"router: {proof.routing}"
    if plan.options.power_budget_w is not None:
        part = float(plan.served.sum() / plan.demand.rates.sum())
        budget_w = plan.options.power_budget_w
        yield f"power budget {budget_w:g} W: {100 * part:.1f} % of the load is served"
    if not plan.is_exact:
        yield "mixes of more than two configurations were not tried"


def _slo_text(task: TaskProof, of_task: str) -> str:
    worst, late = task.worst, sum(hour.late for hour in task.hours)
    dropped = sum(hour.dropped for hour in task.hours)
    return (
        f"SLO: met by {100 * worst.attainment:.2f} % of the requests{of_task} in the worst hour "
        f"({worst.number}), {100 * task.needed:.0f} % are needed; {late} late and {dropped} "
        f"dropped of {sum(hour.requests for hour in task.hours)}"
    )


def _beside(static: Constant | None, all_on: Constant) -> str:
    still = "no fleet holds all day" if static is None else f"never changed {kwh(static.energy_j)}"
    return f"{still}, all on {kwh(all_on.energy_j)}"


def _hours_table(found: ProvedPlan) -> Table:
    """One row for each stretch of the same fleet."""
    plan = found.plan
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title, justify in (("from", "left"), ("requests/s", "right"), ("running", "left")):
        shown.add_column(title, justify=justify)  # type: ignore[arg-type]
    has_sleep = bool(plan.asleep.any())
    if has_sleep:
        shown.add_column("asleep")
    shown.add_column("power W", justify="right")
    states = [(tuple(r), tuple(a)) for r, a in zip(plan.running, plan.asleep, strict=True)]
    for (running, asleep), group in groupby(range(len(states)), key=states.__getitem__):
        own = list(group)
        rates = plan.demand.rates[own]
        row = [
            plan.curve.clock(own[0] * plan.demand.step_s),
            f"{rates.min():.3g}-{rates.max():.3g}",
            replicas_text(plan.types, running),
        ]
        if has_sleep:
            row.append(replicas_text(plan.types, asleep))
        shown.add_row(*row, f"{plan.power_w[own].mean():.0f}")
    return shown


def _actions_table(plan: OperatingPlan) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.add_column("begin at")
    shown.add_column("action")
    for action in plan.actions[:_SHORT]:
        shown.add_row(clock(plan, action.at_s), action_text(plan, action))
    if len(plan.actions) > _SHORT:
        shown.add_row("...", f"{len(plan.actions) - _SHORT} more; --format json has them")
    return shown


def _routing_table(routings: Sequence[Proof]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    titles = ("router", "energy", "worst hour", "p50 TTFT ms", "p99 TTFT ms", "p99 TPOT ms")
    for title in titles:
        shown.add_column(title, justify="left" if title == "router" else "right")
    for one in sorted(routings, key=lambda r: r.energy_j):
        shown.add_row(
            one.routing,
            kwh(one.energy_j),
            f"{100 * one.worst.attainment:.2f} %",
            *latencies(one.weakest),
        )
    return shown
