"""Left over: results that benches kept for a killed driver, into the log of the next one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime

from tuner.errors import OperatorNeededError
from tuner.evaluation.remote.protocol import LeftOver
from tuner.store import RepeatRow, Store, TrialRow, TrialState, raw
from tuner.store.log.log_records import LoggedResult, RepeatOf
from tuner.store.log.measurement_log import MeasurementLog, latest
from tuner.study.durability.results import without_secrets

_LATEST = 256  # records: more than there are benches


def keep_left_over(name: str, store: Store, log: MeasurementLog, found: Sequence[LeftOver]) -> None:
    """Log each result whose evaluation is still open; `recover` stores what is in the log.

    Raises `OperatorNeededError` for a log that cannot be read or written.
    """
    try:
        _append(name, store, log, found)
    except OSError as error:
        raise OperatorNeededError(
            f"what was measured for a killed run cannot be written to {log.path} "
            f"({error.strerror}); fix that, then `tuner resume {name}`"
        ) from error


def _append(name: str, store: Store, log: MeasurementLog, found: Sequence[LeftOver]) -> None:
    logged = _latest_numbers(log) if found else set()
    for one in found:
        row = _open_row(name, store, one)
        if row is None or (one.method == "evaluate", one.number) in logged:
            continue
        evaluation = without_secrets(one.evaluation)
        trial = row if isinstance(row, TrialRow) else store.trial(name, row.trial)
        assert trial is not None
        log.append(
            LoggedResult(
                number=one.number,
                configuration=trial.configuration,
                owner=row.owner,
                started_at=one.started_at,
                ended_at=datetime.now(UTC),
                result=evaluation.result,
                timing=evaluation.timing,
                spent_s=evaluation.timing.elapsed_s,
                warnings=evaluation.warnings,
                encoded_raw=None if evaluation.raw is None else raw.encode(evaluation.raw),
                repeat=_repeat_of(row),
                answers=evaluation.answers,
                grades=evaluation.grades,
                pictures=evaluation.pictures,
            )
        )


def _latest_numbers(log: MeasurementLog) -> set[tuple[bool, int]]:
    """Return the numbers of what was logged last, and whether each is a trial's.

    The killed driver may have logged a result and not stored it.
    """
    records = itertools.islice(latest(log.path), _LATEST)
    return {(r.repeat is None, r.number) for r in records if isinstance(r, LoggedResult)}


def _open_row(name: str, store: Store, found: LeftOver) -> TrialRow | RepeatRow | None:
    """Return the row that still waits for this result; None if it is known, or was begun again."""
    row: TrialRow | RepeatRow | None
    if found.method == "evaluate":
        row = store.trial(name, found.number)
    else:
        repeats = store.repeats.every(name)
        row = next((r for r in repeats if r.number == found.number), None)
    return row if row is not None and row.state is TrialState.RUNNING else None


def _repeat_of(row: TrialRow | RepeatRow) -> RepeatOf | None:
    if isinstance(row, TrialRow):
        return None
    return RepeatOf(row.trial, row.kind, row.traffic, row.load)
