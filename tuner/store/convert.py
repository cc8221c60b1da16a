"""Conversion between the tuner's frozen types and the rows of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from sqlalchemy import Row

from tuner.configuration import Configuration
from tuner.records import Failure, FailureKind, Load, Measurement, Source, Timing
from tuner.store.rows import (
    ProbeKind,
    RepeatKind,
    RepeatRow,
    StudyIdentity,
    TrialOwner,
    TrialRow,
    TrialState,
    kind_named,
)
from tuner.store.schema import RepeatRecord, StudyRecord, TrialRecord, storable


def study_record(identity: StudyIdentity) -> StudyRecord:
    """Return the row of a study: a column has the name of its field."""
    values = {field.name: getattr(identity, field.name) for field in fields(identity)}
    values["slos"] = list(identity.slos)
    values["objectives"] = list(identity.objectives)
    values["energy_source"] = identity.energy_source.value
    values["latency_source"] = identity.latency_source.value
    values["gpu_uuids"] = list(identity.gpu_uuids)
    return StudyRecord(**values)


def identity(record: StudyRecord) -> StudyIdentity:
    """Return the study of a row."""
    values = {field.name: getattr(record, field.name) for field in fields(StudyIdentity)}
    values["slos"] = tuple(record.slos)
    values["objectives"] = tuple(record.objectives)
    values["energy_source"] = Source(record.energy_source)
    values["latency_source"] = Source(record.latency_source)
    values["gpu_uuids"] = tuple(record.gpu_uuids or ())
    return StudyIdentity(**values)


def trial_record(
    study_id: int, number: int, configuration: Configuration, baseline: bool, owner: TrialOwner
) -> TrialRecord:
    """Return the row of a new trial."""
    record = TrialRecord(
        study_id=study_id,
        number=number,
        configuration=configuration.to_json(),
        baseline=baseline,
        state=TrialState.RUNNING.value,
        started_at=datetime.now(UTC),
        warnings=[],
    )
    set_owner(record, owner)
    return record


def repeat_record(
    study_id: int,
    number: int,
    trial: int,
    kind: RepeatKind | ProbeKind,
    owner: TrialOwner,
    traffic: int | None,
    load: Load | None = None,
) -> RepeatRecord:
    """Return the row of a new repeat."""
    record = RepeatRecord(
        study_id=study_id,
        number=number,
        trial=trial,
        kind=kind.value,
        traffic=traffic,
        load=None if load is None else asdict(load),
        state=TrialState.RUNNING.value,
        started_at=datetime.now(UTC),
        warnings=[],
    )
    set_owner(record, owner)
    return record


def set_owner(record: TrialRecord | RepeatRecord, owner: TrialOwner) -> None:
    """Set the owner that runs the trial."""
    record.owner_pid = owner.pid
    record.owner_boot_id = owner.boot_id
    record.owner_host = owner.host
    record.owner_run_tag = owner.run_tag


def set_measurement(
    record: TrialRecord | RepeatRecord, measurement: Measurement, warnings: Sequence[str]
) -> None:
    """End the evaluation as measured."""
    record.state = TrialState.MEASURED.value
    record.ended_at = datetime.now(UTC)
    record.metrics = {name: float(value) for name, value in measurement.metrics.items()}
    record.window_start_s = float(measurement.window_start_s)
    record.window_end_s = float(measurement.window_end_s)
    record.energy_source = measurement.energy_source.value
    record.latency_source = measurement.latency_source.value
    # an early-ended window has metrics and the SLO that it missed
    early = measurement.ended_early
    record.failure_kind = None if early is None else FailureKind.CONFIGURATION.value
    record.failure_reason, record.failure_log_path = early, None
    record.warnings = [storable(warning) for warning in warnings]


def set_failure(record: TrialRecord | RepeatRecord, failure: Failure) -> None:
    """End the evaluation as failed."""
    record.state = TrialState.FAILED.value
    record.ended_at = datetime.now(UTC)
    record.failure_kind = failure.kind.value
    record.failure_reason = failure.reason
    record.failure_log_path = None if failure.log_path is None else str(failure.log_path)


def set_timing(record: TrialRecord | RepeatRecord, timing: Timing | None) -> None:
    """Set the timing of the evaluation, if known."""
    if timing is not None:
        record.elapsed_s, record.launch_s = timing.elapsed_s, timing.launch_s


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
    """Return the trial of a row of `tuner_trials`."""
    return TrialRow(
        number=row.number,
        configuration=Configuration.from_json(row.configuration),
        baseline=row.baseline,
        **_outcome(row),
    )


def repeat_row(row: Row[Any]) -> RepeatRow:
    """Return the repeat of a row of `tuner_repeats`."""
    answers = row.answers
    return RepeatRow(
        number=row.number,
        trial=row.trial,
        kind=kind_named(row.kind),
        **_outcome(row),
        answers=None if answers is None else tuple(tuple(answer) for answer in answers),
        traffic=row.traffic,
        grades=None if row.grades is None else tuple(row.grades),
        load=None if row.load is None else Load(**row.load),
    )


def _outcome(row: Row[Any]) -> _Outcome:
    return _Outcome(
        state=TrialState(row.state),
        measurement=_measurement(row),
        failure=_failure(row),
        warnings=tuple(row.warnings),
        started_at=row.started_at,
        ended_at=row.ended_at,
        owner=_owner(row),
        timing=_timing(row),
    )


def _timing(row: Row[Any]) -> Timing | None:
    return None if row.elapsed_s is None else Timing(row.elapsed_s, row.launch_s)


def _owner(row: Row[Any]) -> TrialOwner:
    return TrialOwner(row.owner_pid, row.owner_boot_id, row.owner_host, row.owner_run_tag)


def _measurement(row: Row[Any]) -> Measurement | None:
    if row.metrics is None:
        return None
    return Measurement(
        metrics=row.metrics,
        window_start_s=row.window_start_s,
        window_end_s=row.window_end_s,
        latency_source=Source(row.latency_source),
        energy_source=Source(row.energy_source),
        ended_early=row.failure_reason if row.state == TrialState.MEASURED else None,
    )


def _failure(row: Row[Any]) -> Failure | None:
    if row.failure_kind is None:
        return None
    log_path = row.failure_log_path
    return Failure(
        kind=FailureKind(row.failure_kind),
        reason=row.failure_reason,
        log_path=None if log_path is None else Path(log_path),
    )
