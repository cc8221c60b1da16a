"""Comparison table: results of other tools beside a study's default, never on a front."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.analysis.load_text import resolved_load_text
from tuner.analysis.outcomes import emulated, energy_j, kind_of_study, metric
from tuner.metrics import METRICS
from tuner.report.labels import UNKNOWN, emulated_label, number
from tuner.report.terminal.front_table import column_title
from tuner.store import UNKNOWN_MODEL, ComparisonPoint, StudyIdentity, TrialRow


def show_comparison(
    console: Console,
    points: Sequence[ComparisonPoint],
    default: TrialRow | None,
    study: StudyIdentity,
) -> None:
    """Print the points below the default's row; nothing if there are none."""
    if not points:
        return
    table = Table(
        title="Measured by other tools, beside the default",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    kind = kind_of_study(study)
    names = (*kind.columns, kind.throughput, "request_throughput_req_s")
    table.add_column("measured by", overflow="fold")
    titles = [*map(column_title, kind.columns), *(METRICS[n].unit for n in names[-2:])]
    for title in (*titles, METRICS[kind.energy].unit):
        table.add_column(Text(title), justify="right", no_wrap=True, vertical="bottom")
    loads = []
    if default is not None:
        values = [*(metric(default, name) for name in names), energy_j(default)]
        label = emulated_label(emulated(study, (default,)))
        name = Text.assemble("this study's default", (f"\n{label}" if label else "", "magenta"))
        table.add_row(name, *map(number, values))
        loads.append(f"the default: {resolved_load_text(study, default.configuration)}")
    for point in points:
        of = f", of {point.server}" if point.server else ""
        name = Text.assemble(f"{point.tool}{of}", (f"\n{point.file_name}", "dim"))
        values = [point.metrics.get(name) for name in names]
        table.add_row(name, *map(number, values), UNKNOWN)
        loads.append(f"{point.file_name}: {_load(point)}")
    console.print(table)
    for note in (*loads, *comparison_notes(points, study.model)):
        console.print(Text(note, style="dim"))


def comparison_notes(points: Sequence[ComparisonPoint], model: str) -> list[str]:
    """Return why such figures are not quite a trial's."""
    notes = [
        "their figures are of a whole run, ramp-up and drain included, and of its prompts; they "
        "have no energy and are on no front"
    ]
    for point in points:
        if point.server:
            notes.append(f"{point.file_name}: no vLLM was measured, but {point.server}")
        if point.failed:
            notes.append(
                f"{point.file_name}: {point.failed} of {point.completed + point.failed} requests "
                "failed; its latencies are of the others"
            )
        if point.model == UNKNOWN_MODEL:
            notes.append(f"{point.file_name}: it does not name its model, the study's is {model}")
        elif point.model != model:
            notes.append(f"{point.file_name}: it measured {point.model}, the study {model}")
    return notes


def _load(point: ComparisonPoint) -> str:
    if point.arrivals is None:
        return _steady_load(point)
    if point.request_rate is None:
        most = "" if point.concurrency is None else f", at most {point.concurrency} under way"
        return f"{point.arrivals}{most}"
    return f"{_steady_load(point)}, {point.arrivals}"


def _steady_load(point: ComparisonPoint) -> str:
    if point.request_rate is None and point.concurrency is None:
        return "all requests at once"
    if point.request_rate is None:
        return f"closed loop, {point.concurrency} requests under way"
    rate = f"open loop, {point.request_rate:g} requests/s"
    return rate if point.concurrency is None else f"{rate}, at most {point.concurrency} under way"
