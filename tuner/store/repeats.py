"""Repeats: confirming measurements of a trial, in their own table so that trials never change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from tuner.errors import UsageError, unknown_name
from tuner.pictures import Pictures
from tuner.records import Failure, Load, Measurement, RawRun, Timing
from tuner.store import convert, raw
from tuner.store.faults import readable
from tuner.store.rows import (
    Answers,
    Grades,
    ProbeKind,
    RepeatKind,
    RepeatRow,
    TrialOwner,
    TrialState,
)
from tuner.store.schema import RepeatRawRunRecord, RepeatRecord, StudyRecord, TrialRecord


class RepeatTables:
    """The repeats of every study in a store; `session` opens one transaction."""

    def __init__(self, session: Callable[[], AbstractContextManager[Session]]) -> None:
        self._session = session

    def begin(
        self,
        study: str,
        trial: int,
        kind: RepeatKind | ProbeKind,
        owner: TrialOwner,
        traffic: int | None = None,
        load: Load | None = None,
    ) -> int:
        """Record that a repeat starts, before anything is launched; return its number.

        `traffic` is the number of the stretch of traffic, `load` a probe's own load. Raises
        `ValueError` if the study has no such trial.
        """
        with self._session() as session:
            study_id = study_of(session, study).id
            of_study = select(TrialRecord.id).where(TrialRecord.study_id == study_id)
            if session.scalar(of_study.where(TrialRecord.number == trial)) is None:
                raise ValueError(f"study '{study}' has no trial {trial} to repeat")
            last = session.scalar(
                select(func.max(RepeatRecord.number)).where(RepeatRecord.study_id == study_id)
            )
            number = 0 if last is None else last + 1
            session.add(convert.repeat_record(study_id, number, trial, kind, owner, traffic, load))
        return number

    def save(
        self,
        study: str,
        number: int,
        result: Measurement | Failure,
        run: RawRun | None,
        *,
        timing: Timing,
        warnings: Sequence[str] = (),
        answers: Answers | None = None,
        grades: Grades | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        """Save the result of a running repeat, with its raw records, in one transaction.

        Raises `ValueError`, before anything is written, if the repeat has already ended or a metric
        is not finite.
        """
        if isinstance(result, Measurement):
            require_finite(result)
        encoded = None if run is None else raw.encode(run)
        with self._session() as session:
            repeat = _repeat(session, study_of(session, study).id, number)
            if repeat is None or repeat.state != TrialState.RUNNING:
                raise ValueError(f"repeat {number} of study '{study}' does not run")
            if isinstance(result, Measurement):
                convert.set_measurement(repeat, result, warnings)
            else:
                convert.set_failure(repeat, result)
            convert.set_timing(repeat, timing)
            repeat.answers = None if answers is None else [list(answer) for answer in answers]
            repeat.grades = None if grades is None else list(grades)
            repeat.pictures = None if pictures is None else [one.to_json() for one in pictures]
            if encoded is not None:
                session.add(RepeatRawRunRecord(repeat_id=repeat.id, encoded=encoded))

    def drop(self, study: str, number: int) -> None:
        """Delete a running repeat whose evaluator is gone; it will be measured again."""
        with self._session() as session:
            repeat = _repeat(session, study_of(session, study).id, number)
            if repeat is not None and repeat.state == TrialState.RUNNING:
                session.delete(repeat)

    def drop_running(self, study: str) -> list[int]:
        """Delete the repeats that a killed tuner left running; return the trials they repeated."""
        with self._session() as session:
            running = (
                RepeatRecord.study_id == study_of(session, study).id,
                RepeatRecord.state == TrialState.RUNNING,
            )
            trials = session.scalars(select(RepeatRecord.trial).where(*running)).all()
            session.execute(delete(RepeatRecord).where(*running))
        return list(trials)

    def of(self, study: str) -> list[RepeatRow]:
        """Return the repeats at the study's load in the order in which they began.

        They come without raw records, as all rows here.
        """
        return [row for row in self.every(study) if isinstance(row.kind, RepeatKind)]

    def probes(self, study: str) -> list[RepeatRow]:
        """Return the probes of a study: at other loads, under stress, and idle."""
        return [row for row in self.every(study) if isinstance(row.kind, ProbeKind)]

    def every(self, study: str) -> list[RepeatRow]:
        """Return the repeats and probes of a study in the order in which they began."""
        with self._session() as session, readable(f"a repeat of study '{study}'"):
            query = select(*RepeatRecord.__table__.columns).where(
                RepeatRecord.study_id == study_of(session, study).id
            )
            rows = session.execute(query.order_by(RepeatRecord.number)).all()
        return [convert.repeat_row(row) for row in rows]

    def raw_run(self, study: str, number: int) -> RawRun | None:
        """Return the raw records of a repeat, or None if there are none."""
        with self._session() as session:
            study_id = study_of(session, study).id
            encoded = session.scalar(
                select(RepeatRawRunRecord.encoded)
                .join(RepeatRecord, RepeatRecord.id == RepeatRawRunRecord.repeat_id)
                .where(RepeatRecord.study_id == study_id, RepeatRecord.number == number)
            )
        return None if encoded is None else raw.decode(encoded)


def study_of(session: Session, name: str) -> StudyRecord:
    """Return a study's row; raises `UsageError` with near names if there is none."""
    record = session.scalar(select(StudyRecord).where(StudyRecord.name == name))
    if record is None:
        names = session.scalars(select(StudyRecord.name)).all()
        if not names:
            raise UsageError(f"unknown study '{name}'; the store holds none yet")
        raise UsageError(unknown_name("study", name, names))
    return record


def require_finite(measurement: Measurement) -> None:
    """Raise `ValueError` for a metric that is not finite: an unmeasured one must be absent."""
    for name, value in measurement.metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {name} is {value}; leave it out instead")


def _repeat(session: Session, study_id: int, number: int) -> RepeatRecord | None:
    of_study = select(RepeatRecord).where(RepeatRecord.study_id == study_id)
    return session.scalar(of_study.where(RepeatRecord.number == number))
