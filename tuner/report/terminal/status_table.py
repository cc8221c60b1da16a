"""Study status: its progress, read from the store while another process may be running it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tuner.analysis.cards.workers import WorkerState, what_runs, worker_states
from tuner.analysis.confirmed_front import ConfirmedFront, confirmed_front
from tuner.analysis.outcomes import trials_text
from tuner.configuration import Value
from tuner.records import LoadSnapshot
from tuner.report.json_forms import front_json
from tuner.report.launch_text import launch_text
from tuner.report.snapshot_text import snapshot_text
from tuner.report.terminal.front_table import heading, show_front
from tuner.report.terminal.layout.narrow import Parts
from tuner.spec.stored import StoredSpec
from tuner.store import Store
from tuner.store.lock.study_lock import study_holder
from tuner.store.log.now_file import NowFile
from tuner.store.rows import EventRow, RepeatKind, RepeatRow, StudyIdentity, TrialRow, TrialState

_LAST = 20  # evaluations that tell how long the next will take
_MOST_FAULTS = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong, at a UTC time."""

    at: datetime
    trial: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Running:
    """The evaluation that runs; `typical_s` is what the last ones took, None if none has ended.

    `load` is how its load goes, None while there is none; `launch` then says which log is written.
    `is_repeat` is true of probes, too; `what` says which it is.
    """

    trial: int
    is_repeat: bool
    knobs: dict[str, Value]
    for_s: float
    typical_s: float | None
    load: LoadSnapshot | None
    launch: str | None = None
    what: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How far a study is.

    `holder` names the process that runs it, None if nobody does. `left_s` is an estimate of the
    wall time to the end of the search, or of the hours if that is sooner; None where nothing is to
    come or nothing is known.
    """

    study: StudyIdentity
    holder: str | None
    ended: int
    trials: str
    running: Running | None
    left_s: float | None
    confirmed: ConfirmedFront
    faults: tuple[Fault, ...]
    workers: tuple[WorkerState, ...] = ()  # of a study on several cards


def status(store: Store, name: str, now: datetime, logs: Path | None = None) -> Status:
    """Return how far the study is at `now`; raises `UsageError` if there is no such study.

    `logs` is the folder of its servers' logs.
    """
    study = store.study(name)
    trials, every = store.trials(name), store.repeats.every(name)
    repeats = [row for row in every if isinstance(row.kind, RepeatKind)]
    holder = study_holder(store.url, name)
    rows: list[TrialRow | RepeatRow] = [*trials, *every]
    typical_s = _typical_s([*trials, *repeats])
    workers = tuple(worker_states(trials, every, now))
    ended = sum(t.state is not TrialState.RUNNING for t in trials)
    return Status(
        study=study,
        holder=holder,
        ended=ended,
        trials=trials_text(trials, study.budget_trials),
        running=(
            None
            if holder is None
            else _running(rows, trials, now, typical_s, NowFile(store.url, name), logs)
        ),
        left_s=None if holder is None else _left_s(study, ended, typical_s, workers),
        confirmed=confirmed_front(study, trials, repeats),
        faults=_faults(rows, store.events(name)),
        workers=workers,
    )


def _running(
    rows: Sequence[TrialRow | RepeatRow],
    trials: Sequence[TrialRow],
    now: datetime,
    typical_s: float | None,
    now_file: NowFile,
    logs: Path | None,
) -> Running | None:
    """Return the newest evaluation that has not ended; one that a dead tuner left is older."""
    open_rows = [row for row in rows if row.state is TrialState.RUNNING]
    if not open_rows:
        return None
    row = max(open_rows, key=lambda r: r.started_at)
    number = row.trial if isinstance(row, RepeatRow) else row.number
    knobs = next((t.configuration.knobs() for t in trials if t.number == number), {})
    for_s = max(0.0, (now - row.started_at).total_seconds())  # the clock may have been set back
    load = now_file.read(now, since=row.started_at)
    launch = None
    if load is None and logs is not None:
        launch = launch_text(logs, row.started_at.timestamp())
    is_repeat = isinstance(row, RepeatRow)
    return Running(number, is_repeat, knobs, for_s, typical_s, load, launch, what_runs(row))


def _typical_s(rows: Sequence[TrialRow | RepeatRow]) -> float | None:
    """Return the mean wall time of the last evaluations, s: their launches count."""
    ended = sorted(
        (row.ended_at, (row.ended_at - row.started_at).total_seconds())
        for row in rows
        if row.ended_at is not None and row.ended_at >= row.started_at
    )
    return statistics.fmean(s for _, s in ended[-_LAST:]) if ended else None


def _left_s(
    study: StudyIdentity, ended: int, typical_s: float | None, workers: Sequence[WorkerState]
) -> float | None:
    """Return the wall time to the nearer end of the budget; 0 when it is spent."""
    left, at_once = [], max(1, sum(worker.outlier is None for worker in workers))
    if study.budget_s is not None and study.evaluation != "virtual":
        left.append(study.budget_s - study.spent_s)
    if study.budget_trials is not None and typical_s is not None:
        left.append((study.budget_trials - ended) * typical_s / at_once)
    return max(0.0, min(left)) if left and study.finished_at is None else None


def _faults(rows: Sequence[TrialRow | RepeatRow], events: Sequence[EventRow]) -> tuple[Fault, ...]:
    """Return the last failures and events, the newest first."""
    found = [Fault(e.at, e.trial, f"{e.kind}: {e.message}") for e in events]
    for row in rows:
        if row.failure is not None and row.measurement is None:
            number = row.trial if isinstance(row, RepeatRow) else row.number
            found.append(Fault(row.ended_at or row.started_at, number, row.failure.reason))
    return tuple(sorted(found, key=lambda f: f.at, reverse=True)[:_MOST_FAULTS])


def status_json(found: Status) -> dict[str, Any]:
    """Return the status for programs; times in s, UTC."""
    study = found.study
    return {
        "study": study.name,
        "alive": found.holder is not None,
        "holder": found.holder,
        "finished": study.finished_at is not None,
        "trials_ended": found.ended,
        "budget_trials": study.budget_trials,
        "spent_s": study.spent_s,
        "budget_s": study.budget_s,
        "left_s": found.left_s,
        "running": None if found.running is None else asdict(found.running),
        "workers": [asdict(worker) for worker in found.workers],
        "faults": [
            {"at": f.at.astimezone(UTC).isoformat(), "trial": f.trial, "what": f.what}
            for f in found.faults
        ],
        "front": front_json(found.confirmed),
    }


def show_status(console: Console, found: Status, store_option: str = "") -> None:
    """Print the status; `store_option` is what commands need to find the store again."""
    console.print(heading(found.study.name, ""))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in _lines(found, store_option):
        table.add_row(name, Parts(value))
    console.print(table)
    console.print()
    show_front(console, found.confirmed)


def _lines(found: Status, store_option: str) -> list[tuple[str, str]]:
    lines = [
        ("tuner", _who(found, store_option)),
        ("progress", _progress(found.study, found.trials)),
    ]
    if found.left_s is not None:
        lines.append(("time left", f"about {duration(found.left_s)}{_then(found.study)}"))
    lines += [(f"card {worker.card}", _worker(worker, found)) for worker in found.workers]
    if found.running is not None and not found.workers:
        lines.append(("now", _now(found.running)))
        if found.running.load is not None:
            lines.append(("", snapshot_text(found.running.load)))
        elif found.running.launch is not None:
            lines.append(("", f"no load yet; {found.running.launch}"))
    for fault in found.faults:
        trial = "" if fault.trial is None else f" trial {fault.trial}:"
        lines.append(("fault", f"{fault.at:%H:%M:%S} UTC{trial} {fault.what}"))
    return lines


def _then(study: StudyIdentity) -> str:
    """Return where the confirmation is: part of the hours, and on top of a budget in trials."""
    if not StoredSpec.of(study).confirms:
        return ""
    return ", then the confirmation" if study.budget_s is None else ", confirmation included"


def _who(found: Status, store_option: str) -> str:
    if found.holder is not None:
        return f"running, {found.holder}"
    if found.study.finished_at is not None:
        return f"not running; finished at {found.study.finished_at:%Y-%m-%d %H:%M} UTC"
    return f"not running, and not finished; `tuner resume {found.study.name}{store_option}`"


def _progress(study: StudyIdentity, trials: str) -> str:
    hours = "" if study.budget_s is None else f" of {study.budget_s / 3600.0:g}"
    virtual = "virtual " if study.evaluation == "virtual" else ""
    return f"{trials}, {study.spent_s / 3600.0:.2f}{hours} {virtual}hours"


def _worker(worker: WorkerState, found: Status) -> str:
    """Return what a card does; nobody does anything in a study that is not running."""
    parts = [f"{worker.measured} measured"]
    if found.holder is not None and worker.runs is not None and worker.for_s is not None:
        parts.insert(0, f"{worker.runs} for {duration(worker.for_s)}")
    if worker.outlier is not None:
        parts.append(f"left out: {worker.outlier}")
    return "; ".join(parts)


def _now(running: Running) -> str:
    typical = (
        "" if running.typical_s is None else f" (they take about {duration(running.typical_s)})"
    )
    knobs = " ".join(f"{name}={value}" for name, value in running.knobs.items())
    return f"{running.what} for {duration(running.for_s)}{typical}: {knobs or 'defaults'}"


def duration(seconds: float) -> str:
    """Return a duration as people say it: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 60.0:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
