"""The task table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.analysis.tasks.flops_estimate import DEFAULT_MFU, FORMULA, SOURCE, FlopsBasis
from tuner.analysis.tasks.gpu_tasks import GpuTask, GpuTasks
from tuner.analysis.tasks.task_energy import CHAT, TaskEnergy, TaskTable
from tuner.metrics import OUTPUT_KINDS, Output
from tuner.report.labels import UNKNOWN, emulated_label, number, percent
from tuner.report.terminal.front_table import heading
from tuner.report.terminal.layout.narrow import tables_that_fit

_COLUMNS = (
    "tokens\nin+out",
    "out\nx chat",
    "J/request\ndefault",
    "recom-\nmended",
    "J x\nchat",
    "saving",
    "by\nFLOPs",
    "FLOPs /\ndefault",
)


def tasks_json(tables: Sequence[TaskTable]) -> list[dict[str, Any]]:
    """Return the tables as plain data, with the estimate's formula and assumption."""
    return [
        {
            "model": table.model,
            "gpu": table.gpu,
            "tasks": [asdict(t) | {"emulated": list(t.emulated)} for t in table.tasks],
            "estimate": {
                "formula": FORMULA,
                "mfu": table.mfu,
                "source_of_default_mfu": SOURCE,
                **({} if table.basis is None else asdict(table.basis)),
            },
        }
        for table in tables
    ]


def gpu_tasks_json(found: GpuTasks) -> dict[str, Any]:
    """Return the tasks of a GPU as plain data."""
    tasks = [asdict(task) | {"emulated": list(task.emulated)} for task in found.tasks]
    return {"gpu": found.gpu, "tasks": tasks, "notes": list(found.notes)}


_GPU_COLUMNS = (
    "a request\ngets",
    "steps\nx chat",
    "J/req.\ndefault",
    "recom-\nmended",
    "J x\nchat",
    "more\nload",
    "saving",
    "energy\nis",
)


def show_gpu_tasks(console: Console, found: GpuTasks) -> None:
    """Print the tasks of a GPU, whatever model each was tuned for."""
    console.print(heading(f"Tasks on {found.gpu}", ""))
    _print_columns(
        console, _GPU_COLUMNS, [(Text(task.task), _gpu_cells(task)) for task in found.tasks]
    )
    for task in found.tasks:
        console.print(Text(f"{task.task}: {task.model}, {task.study}, {task.load}", style="dim"))
    for note in found.notes:
        console.print(Text(note, style="yellow"))
    if all(task.task != CHAT for task in found.tasks):
        console.print(Text("no study of the workload chat, so nothing is relative to it"))
    console.print(
        Text(
            "steps: passes of the model one after another, which are the tokens of an answer or "
            "the sampler's steps; more load: until an SLO is missed; saving: energy per token, "
            "image or second of video, against the default",
            style="dim",
        )
    )


def _print_columns(
    console: Console, titles: Sequence[str], rows: Sequence[tuple[Text, Sequence[str]]]
) -> None:
    """Print a row per task, in as many tables as the terminal is too narrow for."""

    def table(which: Sequence[int]) -> Table:
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        shown.add_column("task", no_wrap=True, vertical="bottom")
        for at in which:
            shown.add_column(Text(titles[at]), justify="right", no_wrap=True, vertical="bottom")
        for name, cells in rows:
            shown.add_row(name, *(cells[at] for at in which))
        return shown

    for part in tables_that_fit(console, range(len(titles)), table):
        console.print(part)


def _gpu_cells(task: GpuTask) -> tuple[str, ...]:
    tied = " tied" if task.tied_with_default else ""
    kind = OUTPUT_KINDS[Output(task.output)]
    unit = "tok" if kind.output.is_text else {Output.IMAGE: "image", Output.VIDEO: "s"}[kind.output]
    return (
        f"{number(task.amount)} {unit}",
        _times(task.step_multiplier),
        number(task.default_j),
        number(task.recommended_j),
        _times(task.energy_multiplier),
        percent(task.load_headroom_percent),
        f"{percent(task.saving_percent)}{tied}",
        "emulated" if "energy" in task.emulated else "measured",
    )


def show_tasks(console: Console, tables: Sequence[TaskTable]) -> None:
    """Print each table with what its figures mean."""
    for table in tables:
        _show(console, table)


def _show(console: Console, table: TaskTable) -> None:
    which = tuple(dict.fromkeys(name for task in table.tasks for name in task.emulated))
    console.print(heading(f"Tasks of {table.model} on {table.gpu}", emulated_label(which)))
    rows = [(Text(task.workload), _cells(task)) for task in table.tasks]
    _print_columns(console, _COLUMNS, rows)
    for task in table.tasks:
        console.print(Text(f"{task.workload}: {task.study}, {_about(task)}", style="dim"))
        if task.note is not None:
            console.print(Text(f"{task.workload}: {task.note}", style="yellow"))
    for line in _foot(table):
        console.print(Text(line, style="dim"))


def _cells(task: TaskEnergy) -> tuple[str, ...]:
    tied = " tied" if task.tied_with_default else ""
    return (
        f"{_whole(task.prompt_tokens)}+{_whole(task.output_tokens)}",
        _times(task.token_multiplier),
        number(task.default_j),
        number(task.recommended_j),
        _times(task.energy_multiplier),
        f"{percent(task.saving_percent)}{tied}",
        number(task.estimated_j),
        _times(task.estimate_ratio),
    )


def _about(task: TaskEnergy) -> str:
    stage = "confirmed" if task.confirmed else "unconfirmed"
    missed = "; the default misses the SLO" if task.default_meets_slo is False else ""
    return f"{task.load}, {stage}{missed}"


def _foot(table: TaskTable) -> list[str]:
    lines = [
        "saving: energy per output token, image or second of video, against vLLM's default",
        f"by FLOPs, estimated, not measured: {FORMULA}",
    ]
    if all(task.workload != CHAT for task in table.tasks):
        lines.insert(0, "no study of the workload chat, so nothing is relative to it")
    if table.basis is None:
        return [*lines, "the estimate needs a known model and GPU; it is unknown here"]
    return [*lines, _assumption(table.basis, table.mfu)]


def _assumption(basis: FlopsBasis, mfu: float) -> str:
    text = (
        f"with {basis.active_parameters / 1e9:.2f}e9 parameters per token, "
        f"{basis.peak_flop_s / 1e12:g} TFLOP/s, {basis.tdp_w:g} W, and an MFU of {mfu:g}"
    )
    return f"{text} ({SOURCE})" if mfu == DEFAULT_MFU else f"{text}, as given by --mfu"


def _whole(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _times(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"
