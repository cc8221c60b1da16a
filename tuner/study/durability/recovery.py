"""Recovery: copy results from the measurement log to a store that missed them.

A store misses results after a kill, a lock or a full disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from tuner.errors import OperatorNeededError
from tuner.records import Measurement
from tuner.spec.study import StudySpec
from tuner.store import RepeatRow, Store, TrialState
from tuner.store.log.log_records import LoggedResult
from tuner.store.log.measurement_log import MeasurementLog, latest
from tuner.study.durability.results import all_warnings, require_metrics

_KNOWN_IN_A_ROW = 3


def recover(
    name: str, spec: StudySpec, store: Store, log: MeasurementLog, note: Callable[[str], None]
) -> int:
    """Save measurements that did not reach the store; return how many evaluations.

    Safe to repeat. Raises `OperatorNeededError` for a log that cannot be read.
    """
    trials = store.states(name)
    rows = store.repeats.every(name)
    repeats = {r.number: r.state for r in rows}
    open_since = _open_since(name, store, trials, rows)
    missed: list[LoggedResult] = []
    known = 0
    try:
        for record in latest(log.path):
            if not isinstance(record, LoggedResult):
                continue
            state = (trials if record.repeat is None else repeats).get(record.number)
            if state is None:
                raise _behind(name, store, record)
            if state is TrialState.RUNNING:
                missed.append(record)
            else:
                known += 1
            # several workers store in another order than they log
            is_older = open_since is None or record.ended_at < open_since
            if known >= _KNOWN_IN_A_ROW and is_older:
                break
    except OSError as error:
        raise OperatorNeededError(
            f"the measurement log {log.path} cannot be read ({error.strerror}); fix that, then "
            f"`tuner resume {name}`"
        ) from error
    for record in missed:
        if record.repeat is None:
            save_trial(name, spec, store, record)
        else:
            save_repeat(name, store, record)
        what = "trial" if record.repeat is None else "repeat"
        note(f"{what} {record.number} was measured but not stored: taken from the measurement log")
    return len(missed)


def _open_since(
    name: str, store: Store, trials: Mapping[int, TrialState], repeats: Sequence[RepeatRow]
) -> datetime | None:
    """Return when the oldest evaluation without a stored result began; None if there is none."""
    open_trials = (store.trial(name, n) for n, s in trials.items() if s is TrialState.RUNNING)
    began = [row.started_at for row in open_trials if row is not None]
    began += [row.started_at for row in repeats if row.state is TrialState.RUNNING]
    return min(began, default=None)


def _behind(name: str, store: Store, record: LoggedResult) -> OperatorNeededError:
    what = "trial" if record.repeat is None else "repeat"
    return OperatorNeededError(
        f"the store {store.shown} is older than the measurement log of study '{name}', which has "
        f"{what} {record.number}; make a store of the log with `tuner store rebuild NEW.db --store "
        f"{store.shown}`, then `tuner resume {name} --store NEW.db`"
    )


def save_trial(name: str, spec: StudySpec, store: Store, record: LoggedResult) -> None:
    """Save a started trial as the loop would have."""
    result, raw = require_metrics(spec, record.result), record.raw
    if isinstance(result, Measurement):
        warnings = all_warnings(spec, result, raw, record.warnings)
        store.save_measurement(
            name,
            record.number,
            result,
            raw,
            warnings=warnings,
            timing=record.timing,
            spent_s=record.spent_s,
        )
    else:
        store.save_failure(
            name, record.number, result, raw, timing=record.timing, spent_s=record.spent_s
        )


def save_repeat(name: str, store: Store, record: LoggedResult) -> None:
    """Save a started repeat as the confirmation would have."""
    store.repeats.save(
        name,
        record.number,
        record.result,
        record.raw,
        timing=record.timing,
        warnings=record.warnings,
        answers=record.answers,
        grades=record.grades,
        pictures=record.pictures,
        spent_s=record.spent_s,
    )
