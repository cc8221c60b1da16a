"""The front as a table for a terminal, and what every table of trials shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuner.analysis.confirmed_front import ConfirmedFront, confirmation_notes
from tuner.analysis.outcomes import emulated, measured, with_errors
from tuner.analysis.trial_summary import TrialSummary, saving_percent
from tuner.configuration import Value
from tuner.metrics import METRICS, TEXT
from tuner.report.labels import emulated_label, metric_label, number, percent
from tuner.report.terminal.layout.narrow import fits, tables_that_fit
from tuner.slo import Slo
from tuner.spec.stored import StoredSpec
from tuner.store.rows import StudyIdentity

_Column: TypeAlias = tuple[str, Callable[[TrialSummary], str]]
_ANSWER = 2  # figures that come first where a table is in parts: energy, and what it saves


def show_front(console: Console, found: ConfirmedFront) -> None:
    """Print the Pareto front, the default below it, and whether the default meets the SLO."""
    study, bounds = found.study, found.slos
    rows = [found.summary(t) for t in found.front]
    label = emulated_label(with_errors(study, emulated(study, measured(found.trials))))
    stage = "Confirmed Pareto front" if found.is_confirmed else "Pareto front"
    console.print(heading(f"{stage} of {study.name}", label))
    console.print(about(study, bounds))
    if not rows:
        console.print(Text("No measured configuration meets the SLO.", style="yellow"))
    console.print(trial_tables(console, rows, found))
    note_default(console, found)
    for note in confirmation_notes(found):
        console.print(Text(note, style="yellow"))


def heading(title: str, label: str) -> Text:
    """Return a title with the label of what is emulated."""
    parts: list[tuple[str, str]] = [(title, "bold")]
    if label:
        parts.append((f"  [{label}]", "bold magenta"))
    return Text.assemble(*parts)


def about(study: StudyIdentity, slos: Sequence[Slo]) -> Text:
    """Return what was measured, and the SLO."""
    wanted = ", ".join(str(slo) for slo in slos) or "none"
    place = " \u00b7 ".join((study.model, study.workload_name, study.gpu, study.server_version))
    return Text(f"{place}\nSLO: {wanted}", style="dim")


def _default_row(rows: Sequence[TrialSummary], found: ConfirmedFront) -> TrialSummary | None:
    """Return the default's row, unless it is among the rows already."""
    baseline = found.baseline
    if baseline is None or any(row.number == baseline.number for row in rows):
        return None
    return found.summary(baseline)


def note_default(console: Console, found: ConfirmedFront) -> None:
    """Print whether the baseline was measured and meets the SLO, unless all is well."""
    name = StoredSpec.of(found.study).baseline_name.replace("your", "Your")
    if found.baseline is None:
        console.print(Text(f"{name} was not run in this study.", style="yellow"))
        return
    shown = found.summary(found.baseline)
    if shown.meets_slo is None:
        reason = shown.reason or "it has not ended"
        console.print(Text(f"{name} was not measured: {reason}", style="yellow"))
    elif not shown.meets_slo:
        console.print(Text(f"{name} does not meet the SLO.", style="yellow"))


def trial_tables(
    console: Console, rows: Sequence[TrialSummary], found: ConfirmedFront, best: int | None = None
) -> RenderableType:
    """Return one table, or several with the same rows where one does not fit.

    The default, or the user's own baseline, is the last row unless it is among `rows`.
    """
    default = _default_row(rows, found)
    shown = [*rows, *([] if default is None else [default])]
    look = _Look(StoredSpec.of(found.study).baseline_row, default, best)
    names = list(dict.fromkeys(name for row in shown for name in row.knobs))
    same = {n for n in names if len(shown) > 1 and len({_knob(r, n) for r in shown}) == 1}
    knobs = [_knob_column(name) for name in names if name not in same]
    figures = _figures(shown)
    end = (("SLO", _slo_mark), *((("runs", _repeats),) if any(r.repeats for r in shown) else ()))
    tables = [_table(shown, look, (*knobs, *figures, *end))]
    if not fits(console, tables[0]):
        make = partial(_table, shown, look)
        answer, others = figures[:_ANSWER], figures[_ANSWER:]
        in_order = (
            (*figures, *end) if fits(console, make((*figures, *end))) else (*answer, *end, *others)
        )
        tables = [*tables_that_fit(console, in_order, make), *tables_that_fit(console, knobs, make)]
    fixed = ", ".join(f"{n}={_knob(shown[0], n)}" for n in names if n in same)
    notes = [Text(f"the same for all: {fixed}", style="dim")] if fixed else []
    if _differ_from_their_rows(shown):
        notes.append(
            Text(
                "savings are beside the default on the same traffic; its row is the mean of all "
                "its windows",
                style="dim",
            )
        )
    return Group(*tables, *notes)


def _differ_from_their_rows(rows: Sequence[TrialSummary]) -> bool:
    """Say whether a saving, as it is shown, is not what the energies of two rows give."""
    default_j = next((row.energy_per_unit_j for row in rows if row.baseline), None)
    plain = {row.number: saving_percent(row.energy_per_unit_j, default_j) for row in rows}
    return any(
        row.pairs and not row.baseline and percent(plain[row.number]) != percent(row.saving_percent)
        for row in rows
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """What the baseline is called, its row below the others, and the trial to highlight."""

    baseline: str
    default: TrialSummary | None
    best: int | None


def _figures(rows: Sequence[TrialSummary]) -> tuple[_Column, ...]:
    """Return the columns of figures, in the unit of what was made."""
    kind = next((row.kind for row in rows if row.energy_per_unit_j is not None), TEXT)
    latencies = [(column_title(name), _metric_of(name)) for name in kind.columns]
    return (
        (METRICS[kind.energy].unit, lambda f: number(f.energy_per_unit_j)),
        ("saving", _saving),
        *latencies,
        (METRICS[kind.throughput].unit, _metric_of(kind.throughput)),
        ("W", lambda f: number(f.mean_power_w)),
    )


def column_title(name: str) -> str:
    """Return a metric's label with its unit below it."""
    return f"{metric_label(name)}\n{METRICS[name].unit}"


def _metric_of(name: str) -> Callable[[TrialSummary], str]:
    return lambda row: number(row.metrics.get(name))


def _table(
    rows: Sequence[TrialSummary],
    look: _Look,
    columns: Sequence[_Column],
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("trial", no_wrap=True)
    for title, _ in columns:
        table.add_column(Text(title), justify="right", overflow="fold", vertical="bottom")
    for row in rows:
        if row is look.default and len(rows) > 1:
            table.add_section()
        name = f"{row.number} {look.baseline}" if row.baseline else str(row.number)
        cells = [Text(name), *(Text(cell(row)) for _, cell in columns)]
        style = "bold green" if row.saves_surely else "bold"
        table.add_row(*cells, style=style if row.number == look.best else None)
    return table


def _knob_column(name: str) -> _Column:
    return name.replace("_", "\n").replace(".", "\n"), lambda row: _knob(row, name)


def _knob(row: TrialSummary, name: str) -> str:
    value: Value | None = row.knobs.get(name)
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _repeats(row: TrialSummary) -> str:
    return str(row.repeats) if row.confirmed else "once"


def _saving(row: TrialSummary) -> str:
    """Return the saving, with half its 95 % interval where there is one."""
    if row.tied_with_default:
        return f"tied\n{percent(row.saving_percent)}"
    if row.saving_interval_percent is None:
        return percent(row.saving_percent)
    low, high = row.saving_interval_percent
    return f"{row.saving_percent:.1f}\u00b1{(high - low) / 2.0:.1f} %"


def _slo_mark(row: TrialSummary) -> str:
    if row.meets_slo is None:
        return row.state.value
    if row.confirmed and row.slo_verdict == "uncertain":
        return "unsure"
    return "yes" if row.meets_slo else "no"
