"""Studies, and everything of one study, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.configuration import Configuration, Value
from tuner.report.confirmed import Standing, standing
from tuner.report.figures import Figures, figures
from tuner.report.load_text import load_text
from tuner.report.tables import UNKNOWN, emulated_label, heading, number
from tuner.report.trials import ENERGY, emulated, measured
from tuner.store.rows import EventRow, RepeatRow, StudyIdentity, StudySummary, TrialRow

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
    table.add_column("trials", no_wrap=True)
    table.add_column("state")
    for summary in summaries:
        study = summary.identity
        label = emulated_label(emulated(study, ()))
        state = "finished" if summary.is_finished else "open"
        state += ", confirmed" if summary.confirmations else ", unconfirmed"
        failed = f"\n{summary.failed} failed" if summary.failed else ""
        table.add_row(
            Text.assemble((study.name, "bold"), (f"\n{study.model}", "dim")),
            Text(study.workload_name),
            f"{study.created_at:%Y-%m-%d}",
            f"{summary.measured} measured{failed}",
            Text(f"{state}\n{label}" if label else state),
        )
    console.print(table)


def show_study(
    console: Console,
    study: StudyIdentity,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    events: Sequence[EventRow],
) -> None:
    """Print a study's identity, its trials as searched, its repeats, and its events."""
    console.print(heading(study.name, emulated_label(emulated(study, measured(trials)))))
    console.print(_identity(study, trials))
    if trials:
        console.print(_trials(standing(study, trials, repeats), trials))
    if repeats:
        console.print(_repeats(repeats))
    if events:
        console.print(_events(events))


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def _identity(study: StudyIdentity, trials: Sequence[TrialRow]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in (
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
        table.add_row(name, Text(value))
    return table


def _budget(study: StudyIdentity, trials: Sequence[TrialRow]) -> str:
    of_trials = "" if study.budget_trials is None else f" of {study.budget_trials}"
    of_hours = "" if study.budget_s is None else f" of {study.budget_s / 3600.0:g}"
    return f"{len(trials)}{of_trials} trials, {study.spent_s / 3600.0:.2f}{of_hours} hours spent"


def _repeats(repeats: Sequence[RepeatRow]) -> Table:
    table = _table()
    for title in ("repeat", "of trial", "state"):
        table.add_column(title, no_wrap=True)
    table.add_column("J/token", justify="right", no_wrap=True)
    table.add_column("p99 TPOT\nms", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for repeat in repeats:
        metrics = {} if repeat.measurement is None else repeat.measurement.metrics
        reason = "" if repeat.failure is None else f": {repeat.failure.reason}"
        table.add_row(
            str(repeat.number),
            str(repeat.trial),
            Text(repeat.state.value, style=_STYLES[repeat.state.value]),
            number(metrics.get(ENERGY)),
            number(metrics.get("p99_tpot_ms")),
            Text(f"{repeat.kind.value}{reason}"),
        )
    return table


def _trials(found: Standing, trials: Sequence[TrialRow]) -> Table:
    bounds, baseline = found.slos, found.baseline
    on_front = {t.number for t in found.front}
    mark = "confirmed" if found.is_confirmed else "front"
    table = _table()
    table.add_column("trial", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("J/token", justify="right", no_wrap=True)
    table.add_column("p99 TPOT\nms", justify="right", no_wrap=True)
    table.add_column("SLO", no_wrap=True)
    table.add_column("configuration, and reason of a failure", overflow="fold")
    fixed = _fixed(trials)
    for trial in trials:
        shown = figures(trial, baseline, bounds)
        table.add_row(
            f"{trial.number} default" if trial.baseline else str(trial.number),
            Text(trial.state.value, style=_STYLES[trial.state.value]),
            number(shown.energy_per_output_token_j),
            number(shown.p99_tpot_ms),
            _verdict(shown, mark if trial.number in on_front else None),
            _detail(trial, fixed),
        )
    return table


def _verdict(shown: Figures, mark: str | None) -> Text:
    if shown.meets_slo is None:
        return Text(UNKNOWN)
    if mark is not None:
        return Text(mark, style="bold green")
    return Text("met") if shown.meets_slo else Text("missed", style="yellow")


def _fixed(trials: Sequence[TrialRow]) -> dict[str, Value]:
    """Return the knobs that have one value in all of several trials."""
    first, *others = (t.configuration.knobs() for t in trials) if len(trials) > 1 else ({}, {})
    return {n: v for n, v in first.items() if all(o.get(n) == v for o in others)}


def _knobs(knobs: Mapping[str, Value]) -> str:
    return ", ".join(f"{name}={value}" for name, value in knobs.items())


def _detail(trial: TrialRow, fixed: Mapping[str, Value]) -> Text:
    knobs = {n: v for n, v in trial.configuration.knobs().items() if n not in fixed}
    text = Text(_knobs(knobs) or "all defaults")
    if trial.failure is not None:
        text.append(f"\n{trial.failure.kind.value}: {trial.failure.reason}", style="red")
        if trial.failure.log_path is not None:
            text.append(f"\nlog: {trial.failure.log_path}", style="dim")
    for warning in trial.warnings:
        text.append(f"\nwarning: {warning}", style="yellow")
    return text


def _events(events: Sequence[EventRow]) -> Table:
    table = _table()
    for title in ("time (UTC)", "event", "trial"):
        table.add_column(title, no_wrap=True)
    table.add_column("what", overflow="fold")
    for event in events:
        table.add_row(
            f"{event.at:%m-%d %H:%M:%S}",
            Text(event.kind),
            UNKNOWN if event.trial is None else str(event.trial),
            Text(event.message),
        )
    return table
