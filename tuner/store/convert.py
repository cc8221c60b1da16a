"""Conversion between the tuner's frozen types and the rows of its tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from sqlalchemy import Row

from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.host.process import text, whole_number
from tuner.pictures import Pictures, pictures_of
from tuner.records import Failure, FailureKind, Load, Measurement, Source, Timing
from tuner.slo import Slo
from tuner.store.faults import readable
from tuner.store.rows import (
    Answers,
    EventRow,
    Grades,
    ProbeKind,
    RepeatKind,
    RepeatRow,
    StudyIdentity,
    TrialOwner,
    TrialRow,
    TrialState,
    kind_named,
)
from tuner.store.schema import storable

Values: TypeAlias = dict[str, Any]  # of a row, by column


def study_values(identity: StudyIdentity) -> Values:
    """Return the row of a study: a column has the name of its field."""
    values = {field.name: getattr(identity, field.name) for field in fields(identity)}
    values["slos"] = list(identity.slos)
    values["objectives"] = list(identity.objectives)
    values["energy_source"] = identity.energy_source.value
    values["latency_source"] = identity.latency_source.value
    values["gpu_uuids"] = list(identity.gpu_uuids)
    return values


def identity(row: Row[Any]) -> StudyIdentity:
    """Return the study of a row; raises `OperatorNeededError` for one that cannot be read."""
    with readable(f"study '{row.name}'"):
        return _identity(row)


def _identity(row: Row[Any]) -> StudyIdentity:
    values = {field.name: getattr(row, field.name) for field in fields(StudyIdentity)}
    for name in _TEXTS:
        text(values[name])
    for name in ("spent_s", "budget_s"):
        _quantity(values[name])
    _moment(row.created_at)
    _moment_if_any(row.finished_at)
    if row.note is not None:
        text(row.note)
    if not isinstance(row.spec_json, dict):
        raise TypeError("its spec is no object")
    if row.budget_trials is not None:
        whole_number(row.budget_trials)
    if not row.objectives:
        raise ValueError("it has no objective")
    values["slos"] = tuple(map(_slo, row.slos))
    values["objectives"] = tuple(map(text, row.objectives))
    values["energy_source"] = Source(row.energy_source)
    values["latency_source"] = Source(row.latency_source)
    values["gpu_uuids"] = tuple(map(text, row.gpu_uuids or ()))
    return StudyIdentity(**values)


_TEXTS = (
    *("name", "model", "workload_name", "workload_sha256", "space_name", "space_sha256"),
    *("evaluation", "server_version", "gpu"),
)


def _slo(written: object) -> str:
    try:
        Slo.parse(text(written))
    except UsageError as error:
        raise ValueError(str(error)) from None
    return str(written)


def _quantity(value: object) -> float | None:
    """Return a number that is not negative, or None; raises `TypeError` or `ValueError`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    if not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is out of range")
    return float(value)


def now() -> datetime:
    """Return the time that rows are stamped with, in UTC."""
    return datetime.now(UTC)


def _moment(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} is no time")
    return value


def _moment_if_any(value: object) -> datetime | None:
    return None if value is None else _moment(value)


def trial_values(
    study_id: int, number: int, configuration: Configuration, baseline: bool, owner: TrialOwner
) -> Values:
    """Return the row of a new trial."""
    return {
        "study_id": study_id,
        "number": number,
        "configuration": configuration.to_json(),
        "baseline": baseline,
        **_begun(owner),
    }


def repeat_values(
    study_id: int,
    number: int,
    trial: int,
    kind: RepeatKind | ProbeKind,
    owner: TrialOwner,
    traffic: int | None,
    load: Load | None = None,
) -> Values:
    """Return the row of a new repeat."""
    return {
        "study_id": study_id,
        "number": number,
        "trial": trial,
        "kind": kind.value,
        "traffic": traffic,
        "load": None if load is None else asdict(load),
        **_begun(owner),
    }


def _begun(owner: TrialOwner) -> Values:
    return {
        "state": TrialState.RUNNING.value,
        "started_at": now(),
        "warnings": [],
        **owner_values(owner),
    }


def owner_values(owner: TrialOwner) -> Values:
    """Return the columns of the owner that runs an evaluation."""
    return {
        "owner_pid": owner.pid,
        "owner_boot_id": owner.boot_id,
        "owner_host": owner.host,
        "owner_run_tag": owner.run_tag,
        "owner_card": owner.card,
    }


def ended_values(
    result: Measurement | Failure, timing: Timing | None, warnings: Sequence[str] = ()
) -> Values:
    """Return the columns of an evaluation that has ended; those of `timing` only if it is known."""
    if isinstance(result, Measurement):
        return {**_measurement_values(result, warnings), **_timing_values(timing)}
    return {**_failure_values(result), **_timing_values(timing)}


def _measurement_values(measurement: Measurement, warnings: Sequence[str]) -> Values:
    # an early-ended window has metrics and the SLO that it missed
    early = measurement.ended_early
    return {
        "state": TrialState.MEASURED.value,
        "ended_at": now(),
        "metrics": {name: float(value) for name, value in measurement.metrics.items()},
        "window_start_s": float(measurement.window_start_s),
        "window_end_s": float(measurement.window_end_s),
        "energy_source": measurement.energy_source.value,
        "latency_source": measurement.latency_source.value,
        "failure_kind": None if early is None else FailureKind.CONFIGURATION.value,
        "failure_reason": early,
        "failure_log_path": None,
        "warnings": [storable(warning) for warning in warnings],
    }


def _failure_values(failure: Failure) -> Values:
    return {
        "state": TrialState.FAILED.value,
        "ended_at": now(),
        "failure_kind": failure.kind.value,
        "failure_reason": failure.reason,
        "failure_log_path": None if failure.log_path is None else str(failure.log_path),
    }


def _timing_values(timing: Timing | None) -> Values:
    if timing is None:
        return {}
    return {"elapsed_s": timing.elapsed_s, "launch_s": timing.launch_s}


def probe_values(
    answers: Answers | None, grades: Grades | None, pictures: Pictures | None
) -> Values:
    """Return the columns of what a repeat's server said, NULL where it was not asked."""
    return {
        "answers": None if answers is None else [list(answer) for answer in answers],
        "grades": None if grades is None else list(grades),
        "pictures": None if pictures is None else [one.to_json() for one in pictures],
    }


class _Outcome(TypedDict):
    """The fields of `tuner.store.rows.Outcome`."""

    state: TrialState
    measurement: Measurement | None
    failure: Failure | None
    warnings: tuple[str, ...]
    started_at: datetime
    ended_at: datetime | None
    owner: TrialOwner
    timing: Timing | None


def trial_row(row: Row[Any]) -> TrialRow:
    """Return the trial of a row of `tuner_trials`.

    Raises `OperatorNeededError` for one that cannot be read, with its number.
    """
    with readable(f"trial {row.number}"):
        return TrialRow(
            number=whole_number(row.number),
            configuration=Configuration.from_json(row.configuration),
            baseline=bool(row.baseline),
            **_outcome(row),
        )


def repeat_row(row: Row[Any]) -> RepeatRow:
    """Return the repeat of a row of `tuner_repeats`; raises as `trial_row`."""
    with readable(f"repeat {row.number}"):
        return _repeat_row(row)


def _repeat_row(row: Row[Any]) -> RepeatRow:
    answers = row.answers
    return RepeatRow(
        number=whole_number(row.number),
        trial=whole_number(row.trial),
        kind=kind_named(row.kind),
        **_outcome(row),
        answers=None if answers is None else tuple(tuple(map(whole_number, a)) for a in answers),
        traffic=None if row.traffic is None else whole_number(row.traffic),
        grades=None if row.grades is None else tuple(map(_grade, row.grades)),
        pictures=pictures_of(row.pictures),
        load=None if row.load is None else _load(row.load),
    )


def _load(written: dict[str, Any]) -> Load:
    concurrency = written.get("concurrency")
    return Load(
        concurrency=None if concurrency is None else whole_number(concurrency),
        request_rate=_quantity(written.get("request_rate")),
    )


def _grade(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"a grade is true or false, found {value!r}")
    return value


def event_row(row: Row[Any]) -> EventRow:
    """Return the event of a row of `tuner_events`; raises as `trial_row`."""
    with readable(f"event {row.id}"):
        return EventRow(
            at=_moment(row.at),
            kind=text(row.kind),
            message=text(row.message),
            trial=None if row.trial is None else whole_number(row.trial),
        )


def _outcome(row: Row[Any]) -> _Outcome:
    state = TrialState(row.state)
    measurement, failure = _measurement(row), _failure(row)
    if (state is TrialState.MEASURED) != (measurement is not None):
        raise ValueError(f"it is {state} and {'has' if measurement else 'lacks'} metrics")
    if state is TrialState.FAILED and failure is None:
        raise ValueError("it failed, and lacks how")
    return _Outcome(
        state=state,
        measurement=measurement,
        failure=failure,
        warnings=tuple(map(text, row.warnings)),
        started_at=_moment(row.started_at),
        ended_at=_moment_if_any(row.ended_at),
        owner=_owner(row),
        timing=_timing(row),
    )


def _timing(row: Row[Any]) -> Timing | None:
    elapsed_s = _quantity(row.elapsed_s)
    return None if elapsed_s is None else Timing(elapsed_s, _quantity(row.launch_s))


def _owner(row: Row[Any]) -> TrialOwner:
    process = (row.owner_pid, row.owner_boot_id, row.owner_host, row.owner_run_tag)
    return TrialOwner(*process, card=row.owner_card)


def _measurement(row: Row[Any]) -> Measurement | None:
    if row.metrics is None:
        return None
    return Measurement(
        metrics={
            name: value if type(value) is float and math.isfinite(value) else _metric(name, value)
            for name, value in row.metrics.items()
        },
        window_start_s=_time_s(row.window_start_s),
        window_end_s=_time_s(row.window_end_s),
        latency_source=Source(row.latency_source),
        energy_source=Source(row.energy_source),
        ended_early=row.failure_reason if row.state == TrialState.MEASURED else None,
    )


def _metric(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{name} is {value!r}, no number")
    return float(value)


def _time_s(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no time")
    return float(value)


def _failure(row: Row[Any]) -> Failure | None:
    if row.failure_kind is None:
        return None
    log_path = row.failure_log_path
    return Failure(
        kind=FailureKind(row.failure_kind),
        reason=text(row.failure_reason),
        log_path=None if log_path is None else Path(text(log_path)),
    )
