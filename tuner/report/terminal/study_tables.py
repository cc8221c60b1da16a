"""Studies, and everything of one study, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.analysis.confirmed_front import ConfirmedFront, confirmed_front
from tuner.analysis.load_text import load_text
from tuner.analysis.outcomes import (
    emulated,
    ended_early,
    energy_in,
    energy_j,
    has_lost_a_race,
    kind_of_study,
    measured,
    metric,
    trials_text,
    with_errors,
)
from tuner.analysis.trial_summary import TrialSummary
from tuner.configuration import Configuration, Value
from tuner.metrics import METRICS, OutputKind
from tuner.report.labels import EARLY, EARLY_NOTE, UNKNOWN, emulated_label, number
from tuner.report.terminal.front_table import column_title, heading
from tuner.report.terminal.layout.narrow import Parts, fits
from tuner.store.rows import EventRow, RepeatRow, StudyIdentity, StudySummary, TrialRow

_WIDE = 76  # characters: figures, and the longest setting beside them
_STYLES = {"measured": "", "failed": "red", "running": "cyan"}


def show_studies(console: Console, summaries: Sequence[StudySummary]) -> None:
    """Print one line per study."""
    if not summaries:
        console.print("no study yet; start one with `tuner run`", markup=False)
        return
    table = _table()
    table.add_column("study and model", no_wrap=True)  # to be copied
    table.add_column("workload", overflow="fold")
    table.add_column("started", no_wrap=True)
    table.add_column("measured", no_wrap=True)
    table.add_column("state", overflow="fold")
    for summary in summaries:
        study = summary.identity
        label = emulated_label(with_errors(study, emulated(study, ())))
        state = "finished" if summary.is_finished else "open"
        state += ",\nconfirmed" if summary.confirmations else ",\nunconfirmed"
        failed = f"\n{summary.failed} failed" if summary.failed else ""
        table.add_row(
            Text.assemble(
                (study.name, "bold"),
                (f"\n{study.model}", "dim"),
                (f"\n{study.note}" if study.note else "", "italic"),
                (f"\n{label}" if label else "", "magenta"),
            ),
            Text(study.workload_name),
            f"{study.created_at:%Y-%m-%d}",
            f"{summary.measured}{failed}",
            Text(state),
        )
    if fits(console, table):
        console.print(table)
    else:
        for summary in summaries:
            console.print(_summary_lines(summary))


def _summary_lines(summary: StudySummary) -> Text:
    """Return a study on lines of its own, for a terminal that is too narrow for the table."""
    study = summary.identity
    label = emulated_label(with_errors(study, emulated(study, ())))
    failed = f", {summary.failed} failed" if summary.failed else ""
    state = "finished" if summary.is_finished else "open"
    state += ", confirmed" if summary.confirmations else ", unconfirmed"
    counted = f"{summary.measured} measured{failed}"
    facts = (study.workload_name, f"{study.created_at:%Y-%m-%d}", counted, state)
    lines = [study.model, " \u00b7 ".join(facts)]
    return Text.assemble(
        (study.name, "bold"),
        *(f"\n  {line}" for line in lines),
        (f"\n  {study.note}" if study.note else "", "italic"),
        (f"\n  {label}" if label else "", "magenta"),
        "\n",
    )


def show_study(
    console: Console,
    study: StudyIdentity,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    events: Sequence[EventRow],
) -> None:
    """Print a study's identity, its trials, what was said of them, its repeats, and its events."""
    found = confirmed_front(study, trials, repeats)
    label = emulated_label(with_errors(study, emulated(study, measured(trials))))
    console.print(heading(study.name, label))
    console.print(_identity(study, trials))
    if trials:
        for table in _trials(found, in_one=console.width >= _WIDE):
            console.print(table)
        if any(_is_part(found, trial) for trial in trials):
            console.print(Text(EARLY_NOTE))
    for warning in _warnings(found.trials):
        console.print(Text.assemble(("warning: ", "yellow"), warning))
    if repeats:
        confirmed = [t for t in trials if _is_confirmed(found, t)]
        console.print(_repeats(kind_of_study(study), confirmed, repeats))
    if events:
        console.print(_events(events))


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def _identity(study: StudyIdentity, trials: Sequence[TrialRow]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in (
        *((("note", study.note),) if study.note else ()),
        ("model", study.model),
        ("workload", f"{study.workload_name} ({study.workload_sha256[:12]})"),
        ("load", load_text(study, Configuration())),
        ("search space", f"{study.space_name} ({study.space_sha256[:12]})"),
        ("SLO", ", ".join(study.slos) or "none"),
        ("objectives", ", ".join(study.objectives)),
        ("evaluation", study.evaluation),
        ("server", study.server_version),
        ("GPU", f"{study.gpu}, driver {study.driver or 'none'}"),
        ("energy", study.energy_source.value),
        ("latency", study.latency_source.value),
        ("started", f"{study.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("budget", _budget(study, trials)),
        ("fixed knobs", _knobs(_fixed(trials)) or "none"),
    ):
        table.add_row(name, Parts(value))
    return table


def _budget(study: StudyIdentity, trials: Sequence[TrialRow]) -> str:
    of_hours = "" if study.budget_s is None else f" of {study.budget_s / 3600.0:g}"
    hours = "virtual hours" if study.evaluation == "virtual" else "hours"
    counted = trials_text(trials, study.budget_trials)
    return f"{counted}, {study.spent_s / 3600.0:.2f}{of_hours} {hours} spent"


def _is_confirmed(found: ConfirmedFront, trial: TrialRow) -> bool:
    known = found.confirmations.get(trial.number)
    return known is not None and known.is_confirmed


def _is_part(found: ConfirmedFront, trial: TrialRow) -> bool:
    """Say whether a trial's figures are of a window that was ended early, and of no repeats."""
    return bool(ended_early([trial])) and not _is_confirmed(found, trial)


def _repeats(
    kind: OutputKind, confirmed: Sequence[TrialRow], repeats: Sequence[RepeatRow]
) -> Table:
    """Return each window of the trials whose figures are of several, the search's first."""
    table = _table()
    for title in ("repeat", "trial", "state"):
        table.add_column(Text(title), no_wrap=True)
    _add_figures(table, kind)
    table.add_column("why", overflow="fold", min_width=12)
    for trial in confirmed:
        table.add_row(
            UNKNOWN,
            str(trial.number),
            trial.state.value,
            number(energy_j(trial)),
            number(metric(trial, kind.columns[0])),
            "search, not in the figures above",
        )
    for repeat in repeats:
        metrics = {} if repeat.measurement is None else repeat.measurement.metrics
        reason = "" if repeat.failure is None else f": {repeat.failure.reason}"
        table.add_row(
            str(repeat.number),
            str(repeat.trial),
            Text(repeat.state.value, style=_STYLES[repeat.state.value]),
            number(energy_in(metrics)),
            number(metrics.get(kind.columns[0])),
            Text(f"{repeat.kind.value}{reason}"),
        )
    return table


def _trials(found: ConfirmedFront, *, in_one: bool) -> list[Table]:
    """Return the trials with the figures that every report shows: of a confirmed one, repeated.

    Where a terminal is too narrow for one table, the configurations are another.
    """
    figures = _table()
    details = figures if in_one else _table()
    for table in (figures,) if in_one else (figures, details):
        table.add_column("trial", no_wrap=True)
    kind = kind_of_study(found.study)
    _add_figures(figures, kind)
    figures.add_column("SLO", no_wrap=True)
    details.add_column("configuration, and reason of a failure", overflow="fold")
    on_front, fixed = {t.number for t in found.front}, _fixed(found.trials)
    for trial in found.trials:
        name = f"{trial.number} default" if trial.baseline else str(trial.number)
        mark = EARLY if _is_part(found, trial) else ""
        cells = (
            f"{number(energy_j(trial))}{mark}",
            f"{number(metric(trial, kind.columns[0]))}{mark}",
            _verdict(found.summary(trial), trial, is_on_front=trial.number in on_front),
        )
        detail = _detail(trial, fixed)
        if in_one:
            figures.add_row(name, *cells, detail)
        else:
            figures.add_row(name, *cells)
            details.add_row(name, detail)
    return [figures] if in_one else [figures, details]


def _add_figures(table: Table, kind: OutputKind) -> None:
    for title in (METRICS[kind.energy].unit, column_title(kind.columns[0])):
        table.add_column(title, justify="right", no_wrap=True)


def _verdict(shown: TrialSummary, trial: TrialRow, *, is_on_front: bool) -> Text:
    """Return `confirmed` or `front` for a member of the front, else how the trial stands."""
    if is_on_front:
        return Text("confirmed" if shown.confirmed else "front", style="bold green")
    if has_lost_a_race(trial):
        return Text("ended early", style="yellow")  # it was no better than another, or missed
    if ended_early([trial]) or shown.meets_slo is False:
        return Text("missed", style="yellow")
    if shown.meets_slo is None:
        return Text(trial.state.value, style=_STYLES[trial.state.value])
    return Text("met")


def _warnings(trials: Sequence[TrialRow]) -> list[str]:
    """Return what was said of trials, each kind once; what differs between them is left out."""
    kinds: dict[str, dict[int, str]] = {}
    for trial in trials:
        for warning in trial.warnings:
            kinds.setdefault(warning.split(": ")[0], {})[trial.number] = warning
    return [
        f"{_ranges(texts)}: {kind if len(set(texts.values())) > 1 else next(iter(texts.values()))}"
        for kind, texts in kinds.items()
    ]


def _ranges(numbers: Iterable[int]) -> str:
    """Return `trial 7`, or `trials 0-2, 5`."""
    runs: list[list[int]] = []
    for number_ in sorted(numbers):
        if runs and runs[-1][-1] == number_ - 1:
            runs[-1].append(number_)
        else:
            runs.append([number_])
    parts = [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs]
    is_one = len(runs) == 1 and len(runs[0]) == 1
    return f"{'trial' if is_one else 'trials'} {', '.join(parts)}"


def _fixed(trials: Sequence[TrialRow]) -> dict[str, Value]:
    """Return the knobs that have one value in all of several trials."""
    first, *others = (t.configuration.knobs() for t in trials) if len(trials) > 1 else ({}, {})
    return {n: v for n, v in first.items() if all(o.get(n) == v for o in others)}


def _knobs(knobs: Mapping[str, Value]) -> str:
    return ", ".join(f"{name}={value}" for name, value in knobs.items())


def _detail(trial: TrialRow, fixed: Mapping[str, Value]) -> Text:
    knobs = {n: v for n, v in trial.configuration.knobs().items() if n not in fixed}
    text = Parts(_knobs(knobs) or "all defaults")
    if trial.failure is not None:
        text.append(f"\n{trial.failure.kind.value}: {trial.failure.reason}", style="red")
        if trial.failure.log_path is not None:
            text.append(f"\nlog: {trial.failure.log_path}", style="dim")
    return text


def _events(events: Sequence[EventRow]) -> Table:
    table = _table()
    for title in ("time (UTC)", "event", "trial"):
        table.add_column(Text(title), no_wrap=True)
    table.add_column("what", overflow="fold")
    for event in events:
        table.add_row(
            f"{event.at:%m-%d %H:%M:%S}",
            Text(event.kind),
            UNKNOWN if event.trial is None else str(event.trial),
            Parts(event.message),
        )
    return table
