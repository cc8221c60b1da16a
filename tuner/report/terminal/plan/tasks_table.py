"""A plan for several tasks, for a terminal: the ways to serve them, and the best one in full."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from tuner.analysis.plan.simulation.tallies import TaskProof
from tuner.analysis.plan.tasks_plan import TasksPlan
from tuner.report.terminal.front_table import heading
from tuner.report.terminal.plan.plan_table import kwh, latencies, show_plan_body

WAY_TITLES = (
    "replicas",
    "energy",
    "task",
    "worst hour",
    "p50 TTFT ms",
    "p99 TTFT ms",
    "p99 TPOT ms",
)


def show_tasks_plan(console: Console, found: TasksPlan) -> None:
    """Print how the ways compare, then what runs when in the best one."""
    names = " and ".join(task for plan in found.best.plans for task in plan.tasks)
    label = "emulated" if found.emulated else ""
    console.print(heading(f"Operating plan for {names}, {found.gpus} GPUs", label))
    for line in ways_summary(found):
        console.print(line, highlight=False)
    console.print(_ways_table(found))
    for note in found.notes:
        console.print(f"note: {note}", highlight=False)
    for plan in found.best.plans:
        console.print(heading(f"Replicas for {' and '.join(plan.tasks)}", label))
        show_plan_body(console, plan)


def ways_summary(found: TasksPlan) -> Iterator[str]:
    """Yield what saves most, and what it costs in latency."""
    best = found.best
    said = "in simulation (emulated)" if best.tasks else "by the operating points"
    yield f"{best.sharing}: {kwh(best.energy_j)} {said}{_beside_fixed(found)}"
    if len(found.layouts) < 2:
        return
    other = found.layouts[1]
    less = 1.0 - best.energy_j / other.energy_j
    yield f"that is {100 * less:.1f} % less than with {other.sharing} ({kwh(other.energy_j)})"
    theirs = {task.task: task for task in other.tasks}
    for task in best.tasks:
        yield f"{task.task}: {_beside(task, theirs[task.task])}"


def way_rows(found: TasksPlan) -> Iterator[tuple[str, ...]]:
    """Yield the cells of `WAY_TITLES`, a row for each task of each way."""
    for way in found.layouts:
        names = [task for plan in way.plans for task in plan.tasks]
        known = {task.task: task for task in way.tasks}
        for place, name in enumerate(names):
            first = (way.sharing, kwh(way.energy_j)) if place == 0 else ("", "")
            if name in known:
                cells = (f"{100 * known[name].worst.attainment:.2f} %", *latencies(known[name]))
            else:
                cells = ("",) * 4
            yield (*first, name, *cells)


def _beside(task: TaskProof, other: TaskProof) -> str:
    figures = (
        ("p50 TTFT", task.p50_ttft_ms, other.p50_ttft_ms),
        ("p99 TTFT", task.p99_ttft_ms, other.p99_ttft_ms),
        ("p99 TPOT", task.p99_tpot_ms, other.p99_tpot_ms),
    )
    return ", ".join(f"{name} {ms:.3g} ms instead of {than:.3g}" for name, ms, than in figures)


def _beside_fixed(found: TasksPlan) -> str:
    if found.saved is None or found.fixed_j is None:
        return ""
    if found.saved <= 0.0:
        return f"; a fleet that stays as it is uses no more ({kwh(found.fixed_j)})"
    fixed = kwh(found.fixed_j)
    return f", {100 * found.saved:.0f} % less than the best fleet that stays as it is ({fixed})"


def _ways_table(found: TasksPlan) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in WAY_TITLES:
        is_text = title in ("replicas", "task")
        shown.add_column(title, justify="left" if is_text else "right")
    for row in way_rows(found):
        shown.add_row(*row)
    return shown
