"""Store check: the file, its tables, Optuna's tables against ours, the measurement logs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import text

from tuner.errors import PreflightError
from tuner.host.finding import Finding, note, problem
from tuner.records import Measurement
from tuner.store.faults import sqlite_fault
from tuner.store.lock.study_lock import study_lock
from tuner.store.log.log_records import LoggedResult, LoggedStudy
from tuner.store.log.measurement_log import log_folder_of, read_log
from tuner.store.rows import RepeatRow, TrialRow, TrialState
from tuner.store.store import Store
from tuner.store.upkeep.backup import backup_path, unfinished_path

_MOST_SAID = 20  # of the faults of one kind that SQLite lists


@dataclass(frozen=True, slots=True)
class _Logged:
    """The results of a log by number, and the count of its damaged lines."""

    study: str | None
    trials: dict[int, LoggedResult]
    repeats: dict[int, LoggedResult]
    damaged: int


def check_file(path: Path) -> list[Finding]:
    """Return the faults that SQLite finds in a file; raises the error tree if it cannot check."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    found: list[Finding] = []
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=60.0)) as connection:
            whole = connection.execute(f"PRAGMA integrity_check({_MOST_SAID})").fetchall()
            found += [problem("file", str(row[0])) for row in whole if row != ("ok",)]
            if not found:
                for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
                    message = f"row {row} of {table} belongs to nothing in {parent}"
                    found.append(problem("file", message))
    except sqlite3.DatabaseError as error:
        fault = sqlite_fault(error, str(path))
        if fault is None or not (error.sqlite_errorname or "").startswith("SQLITE_CORRUPT"):
            raise (fault or error) from error
        found.append(problem("file", str(error)))
    except UnicodeDecodeError:  # SQLite quotes a damaged name
        found.append(problem("file", "a name in it is no text"))
    return found[:_MOST_SAID]


def check_studies(store: Store, state_folder: Path) -> list[Finding]:
    """Return the contradictions between the tuner's tables, Optuna's and the measurement logs."""
    found: list[Finding] = []
    folder = log_folder_of(store.parsed_url, state_folder)
    logs: dict[str | None, _Logged] = {}
    for path in _logs(folder):
        read = _read(path)
        if read.study is not None:
            logs[read.study] = read
    for study in store.identities():
        name = study.name
        trials = {t.number: t for t in store.trials(name)}
        repeats = {r.number: r for r in store.repeats.every(name)}
        is_run = _is_being_run(store, name)
        found += _optuna_findings(store, name, trials)
        found += _running_findings(name, trials, repeats, is_run=is_run)
        log = logs.get(name)
        if log is None:
            found.append(note(name, "has no measurement log: it cannot be rebuilt"))
        else:
            found += _log_findings(name, log, trials, repeats)
    known = {study.name for study in store.identities()}
    found += [
        note(str(name), "is in a measurement log and not in the store")
        for name in logs
        if name not in known
    ]
    return found + list(_leftovers(store, folder))


def _read(path: Path) -> _Logged:
    name: str | None = None
    trials: dict[int, LoggedResult] = {}
    repeats: dict[int, LoggedResult] = {}
    damaged = 0
    for line in read_log(path):
        if line.record is None:
            damaged += 1
        elif isinstance(line.record, LoggedStudy):
            name = line.record.identity.name
        else:
            kind = trials if line.record.repeat is None else repeats
            kind[line.record.number] = line.record
    return _Logged(name, trials, repeats, damaged)


def _logs(folder: Path) -> list[Path]:
    # renamed logs (NAME.1.jsonl) sort before NAME.jsonl, so that the present one counts
    return sorted(folder.glob("*.jsonl"), key=lambda path: (path.name.count("."), path.name))[::-1]


def _is_being_run(store: Store, name: str) -> bool:
    try:
        with study_lock(store.url, name):
            return False
    except PreflightError:
        return True


def _optuna_findings(store: Store, name: str, trials: dict[int, TrialRow]) -> Iterator[Finding]:
    """Compare by number: each COMPLETE trial there needs a result here that was told."""
    query = text(
        "SELECT t.number, t.state FROM trials t JOIN studies s ON s.study_id = t.study_id "
        "WHERE s.study_name = :name"
    )
    store.optuna_storage()  # makes its tables where there are none
    with store.session() as session:
        states = {row[0]: str(row[1]) for row in session.execute(query, {"name": name})}
    for number, state in sorted(states.items()):
        row = trials.get(number)
        if state == "COMPLETE" and (row is None or not _is_told(row)):
            yield problem(name, f"trial {number} is COMPLETE in Optuna and has no result")
    for number, row in trials.items():
        if number not in states:
            yield problem(name, f"trial {number} is not among Optuna's")
        elif row.measurement is not None and states[number] == "RUNNING":
            message = f"trial {number} is measured and not told; `tuner resume {name}` tells it"
            yield note(name, message)
        elif row.measurement is not None and states[number] != "COMPLETE":
            yield problem(name, f"trial {number} is measured and {states[number]} in Optuna")


def _is_told(row: TrialRow) -> bool:
    return row.measurement is not None or (
        row.failure is not None and not row.failure.kind.is_machines
    )


def _running_findings(
    name: str,
    trials: dict[int, TrialRow],
    repeats: dict[int, RepeatRow],
    *,
    is_run: bool,
) -> Iterator[Finding]:
    if is_run:
        yield note(name, "is being run now: what is half done is no fault")
        return
    for what, rows in (("trial", trials.values()), ("repeat", repeats.values())):
        for row in rows:
            if row.state is TrialState.RUNNING:
                message = f"{what} {row.number} was interrupted; `tuner resume {name}` goes on"
                yield note(name, message)


def _log_findings(
    name: str, log: _Logged, trials: dict[int, TrialRow], repeats: dict[int, RepeatRow]
) -> Iterator[Finding]:
    if log.damaged:
        yield note(name, f"{log.damaged} lines of its measurement log are torn")
    for what, logged, rows in (
        ("trial", log.trials, dict[int, TrialRow | RepeatRow](trials)),
        ("repeat", log.repeats, dict[int, TrialRow | RepeatRow](repeats)),
    ):
        for number, record in logged.items():
            if difference := _difference(record, rows.get(number)):
                yield problem(name, f"{what} {number} {difference}")
        unlogged = [n for n, r in rows.items() if r.measurement is not None and n not in logged]
        if unlogged:
            message = f"{len(unlogged)} measured {what}s are not in the measurement log"
            yield note(name, f"{message} (the first is {unlogged[0]})")


def _difference(logged: LoggedResult, row: TrialRow | RepeatRow | None) -> str | None:
    if row is None:
        return "is in the measurement log and not in the store; use `tuner store rebuild`"
    if row.state is TrialState.RUNNING:
        return "was measured and did not reach the store; `tuner resume` takes it from the log"
    if isinstance(row, TrialRow) and row.configuration != logged.configuration:
        return "is another configuration in the measurement log; use `tuner store rebuild`"
    if not isinstance(logged.result, Measurement) or row.measurement is None:
        return None  # one that lacks a needed metric is stored as a failure
    if dict(row.measurement.metrics) != dict(logged.result.metrics):
        return "has other metrics in the measurement log; use `tuner store rebuild`"
    return None


def _leftovers(store: Store, folder: Path) -> Iterator[Finding]:
    if store.path is not None:
        left = [unfinished_path(store.path), store.path.with_name(f"{store.path.name}-journal")]
        for path in left:
            if path.exists():
                yield note("file", f"{path} is left over; the next run deals with it")
        if not backup_path(store.path, 1).exists():
            yield note("file", "has no backup yet; make one with `tuner store backup`")
    for path in folder.glob("*.reserve"):
        yield note("log", f"{path} is the room a run sets aside; kill -9 leaves it")
