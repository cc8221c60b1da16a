"""Restore: write the results of a measurement log into the store's tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from sqlalchemy.orm import Session

from tuner.configuration import Configuration
from tuner.records import Measurement
from tuner.store import convert
from tuner.store.log.log_records import LoggedResult
from tuner.store.repeats import study_of
from tuner.store.schema import RawRunRecord, RepeatRawRunRecord, RepeatRecord, TrialRecord
from tuner.store.store import Store

_AT_ONCE = 200


def restore_results(
    store: Store, study: str, records: Sequence[LoggedResult], baseline: Configuration
) -> None:
    """Add results, with their times and owners, to a study that lacks these numbers.

    Trials of the configuration `baseline` are the baseline's.
    """
    left = iter(records)
    while batch := list(islice(left, _AT_ONCE)):
        with store.session() as session:
            study_id = study_of(session, study).id
            for record in batch:
                _add(session, study_id, record, baseline)


def _add(session: Session, study_id: int, logged: LoggedResult, baseline: Configuration) -> None:
    record = _ended(_begun(study_id, logged, baseline), logged)
    session.add(record)
    if logged.encoded_raw is None:
        return
    session.flush()
    if isinstance(record, TrialRecord):
        session.add(RawRunRecord(trial_id=record.id, encoded=logged.encoded_raw))
    else:
        session.add(RepeatRawRunRecord(repeat_id=record.id, encoded=logged.encoded_raw))


def _begun(
    study_id: int, logged: LoggedResult, baseline: Configuration
) -> TrialRecord | RepeatRecord:
    number, owner, repeat = logged.number, logged.owner, logged.repeat
    if repeat is not None:
        return convert.repeat_record(
            study_id, number, repeat.trial, repeat.kind, owner, repeat.traffic, repeat.load
        )
    configuration = logged.configuration
    is_baseline = configuration == baseline
    return convert.trial_record(study_id, number, configuration, is_baseline, owner)


def _ended(record: TrialRecord | RepeatRecord, logged: LoggedResult) -> TrialRecord | RepeatRecord:
    if isinstance(logged.result, Measurement):
        convert.set_measurement(record, logged.result, logged.warnings)
    else:
        convert.set_failure(record, logged.result)
    record.started_at, record.ended_at = logged.started_at, logged.ended_at
    convert.set_timing(record, logged.timing)
    if isinstance(record, RepeatRecord) and logged.answers is not None:
        record.answers = [list(answer) for answer in logged.answers]
    if isinstance(record, RepeatRecord) and logged.grades is not None:
        record.grades = list(logged.grades)
    if isinstance(record, RepeatRecord) and logged.pictures is not None:
        record.pictures = [one.to_json() for one in logged.pictures]
    return record
