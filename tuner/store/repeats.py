"""Repeats: confirming measurements of a trial, in their own table so that trials never change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

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
from tuner.store.schema import REPEAT_RAW_RUNS, REPEATS, STUDIES, TRIALS, add_row


class RepeatTables:
    """The repeats of every study in a store; `session` opens one transaction."""

    def __init__(self, session: Callable[[], AbstractContextManager[Connection]]) -> None:
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
            study_id = study_id_of(session, study)
            of_study = select(TRIALS.c.id).where(TRIALS.c.study_id == study_id)
            if session.scalar(of_study.where(TRIALS.c.number == trial)) is None:
                raise ValueError(f"study '{study}' has no trial {trial} to repeat")
            last = session.scalar(
                select(func.max(REPEATS.c.number)).where(REPEATS.c.study_id == study_id)
            )
            number = 0 if last is None else last + 1
            values = convert.repeat_values(study_id, number, trial, kind, owner, traffic, load)
            add_row(session, REPEATS, values)
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
        spent_s: float = 0.0,
    ) -> None:
        """Save the result of a running repeat, with its raw records, in one transaction.

        `spent_s` is added to the study's wall time, s.

        Raises `ValueError`, before anything is written, if the repeat has already ended or a metric
        is not finite.
        """
        if isinstance(result, Measurement):
            require_finite(result)
        encoded = None if run is None else raw.encode(run)
        with self._session() as session:
            study_id = study_id_of(session, study)
            repeat = _repeat(session, study_id, number)
            if repeat is None or repeat.state != TrialState.RUNNING:
                raise ValueError(f"repeat {number} of study '{study}' does not run")
            values = convert.ended_values(result, timing, warnings)
            values |= convert.probe_values(answers, grades, pictures)
            session.execute(update(REPEATS).where(REPEATS.c.id == repeat.id).values(values))
            add_spent(session, study_id, spent_s)
            if encoded is not None:
                add_row(session, REPEAT_RAW_RUNS, {"repeat_id": repeat.id, "encoded": encoded})

    def drop(self, study: str, number: int) -> None:
        """Delete a running repeat whose evaluator is gone; it will be measured again."""
        with self._session() as session:
            repeat = _repeat(session, study_id_of(session, study), number)
            if repeat is not None and repeat.state == TrialState.RUNNING:
                session.execute(delete(REPEATS).where(REPEATS.c.id == repeat.id))

    def drop_running(self, study: str) -> list[int]:
        """Delete the repeats that a killed tuner left running; return the trials they repeated."""
        with self._session() as session:
            running = (
                REPEATS.c.study_id == study_id_of(session, study),
                REPEATS.c.state == TrialState.RUNNING,
            )
            trials = session.scalars(select(REPEATS.c.trial).where(*running)).all()
            session.execute(delete(REPEATS).where(*running))
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
            query = select(REPEATS).where(REPEATS.c.study_id == study_id_of(session, study))
            rows = session.execute(query.order_by(REPEATS.c.number)).all()
        return [convert.repeat_row(row) for row in rows]

    def raw_run(self, study: str, number: int) -> RawRun | None:
        """Return the raw records of a repeat, or None if there are none."""
        with self._session() as session:
            study_id = study_id_of(session, study)
            encoded = session.scalar(
                select(REPEAT_RAW_RUNS.c.encoded)
                .join(REPEATS, REPEATS.c.id == REPEAT_RAW_RUNS.c.repeat_id)
                .where(REPEATS.c.study_id == study_id, REPEATS.c.number == number)
            )
        return None if encoded is None else raw.decode(encoded)


def study_of(session: Connection, name: str) -> Row[Any]:
    """Return a study's row; raises `UsageError` with near names if there is none."""
    found = session.execute(select(STUDIES).where(STUDIES.c.name == name)).one_or_none()
    if found is None:
        raise _unknown(session, name)
    return found


def study_id_of(session: Connection, name: str) -> int:
    """Return the key of a study's row; raises as `study_of`."""
    found: int | None = session.scalar(select(STUDIES.c.id).where(STUDIES.c.name == name))
    if found is None:
        raise _unknown(session, name)
    return found


def add_spent(session: Connection, study_id: int, seconds: float) -> None:
    """Add wall time, s, to the total of all runs of a study."""
    spent_s = STUDIES.c.spent_s + seconds
    session.execute(update(STUDIES).where(STUDIES.c.id == study_id).values(spent_s=spent_s))


def _unknown(session: Connection, name: str) -> UsageError:
    names = session.scalars(select(STUDIES.c.name)).all()
    if not names:
        return UsageError(f"unknown study '{name}'; the store holds none yet")
    return UsageError(unknown_name("study", name, names))


def require_finite(measurement: Measurement) -> None:
    """Raise `ValueError` for a metric that is not finite: an unmeasured one must be absent."""
    for name, value in measurement.metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {name} is {value}; leave it out instead")


def _repeat(session: Connection, study_id: int, number: int) -> Row[Any] | None:
    of_study = select(REPEATS).where(REPEATS.c.study_id == study_id)
    return session.execute(of_study.where(REPEATS.c.number == number)).one_or_none()
