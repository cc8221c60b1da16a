"""The store of studies: everything measured goes through here, and is on disk when it returns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sqlalchemy import URL, Engine, func, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError, PreflightError, UsageError, unknown_name
from tuner.records import Failure, Measurement, RawRun
from tuner.store import address, convert, raw
from tuner.store.faults import BUSY_TIMEOUT_S, database_faults, fault_of, optuna_faults
from tuner.store.rows import EventRow, Owner, StudyIdentity, StudySummary, TrialRow, TrialState
from tuner.store.schema import (
    SCHEMA_VERSION,
    Base,
    EventRecord,
    RawRunRecord,
    SchemaRecord,
    StudyRecord,
    TrialRecord,
)

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_CREATION_LOCK = 0x74756E6572  # of PostgreSQL, so that two starts do not create the same tables


class Store:
    """Studies, trials and events of one database. Safe to use from several threads."""

    def __init__(self, url: URL, engine: Engine, *, busy_timeout_s: float) -> None:
        self._url = url
        self._engine = engine
        self._busy_timeout_s = busy_timeout_s
        self._optuna_storages: list[RDBStorage] = []

    @classmethod
    def open(cls, url: str | Path, *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Self:
        """Open the store at a path or URL; without `create` nothing is written to it.

        Raises `UsageError` if there is none, `PreflightError` if it cannot be used from here and
        `OperatorNeededError` if it is damaged; the file is then as it was.
        """
        parsed = address.parse_address(url)
        path = address.file_of(parsed)
        if path is not None:
            address.check_file(path, create=create)
        engine = address.database_engine(parsed, busy_timeout_s=busy_timeout_s)
        store = cls(parsed, engine, busy_timeout_s=busy_timeout_s)
        try:
            store._check_reachable()
            with database_faults(store.shown):
                store._check_schema(create=create)
        except BaseException:
            store.close()
            raise
        return store

    @property
    def url(self) -> str:
        """The full URL, with the password if there is one: not for showing."""
        return self._url.render_as_string(hide_password=False)

    @property
    def shown(self) -> str:
        """How to name the store to people."""
        return address.shown(self._url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, Optuna's too; the store opens new ones when it is used again."""
        for storage in self._optuna_storages:
            storage.remove_session()
            storage.engine.dispose()
        self._engine.dispose()

    def optuna_storage(self) -> RDBStorage:
        """Return Optuna's storage in the same database; its tables are created if missing."""
        from optuna.storages import RDBStorage

        options = address.engine_options(self._url, busy_timeout_s=self._busy_timeout_s)
        with self.optuna_faults():
            storage = RDBStorage(self.url, engine_kwargs=options)
        self._optuna_storages.append(storage)
        return storage

    def optuna_faults(self) -> AbstractContextManager[None]:
        """Around calls of Optuna: database faults become the errors that this class raises."""
        return optuna_faults(self.shown)

    def create_study(self, identity: StudyIdentity) -> None:
        """Add a study; raises `UsageError` if the name is taken."""
        taken = UsageError(
            f"study '{identity.name}' exists already; go on with `tuner resume {identity.name}`, "
            "or name another with --study"
        )
        try:
            with self._session() as session:
                names = select(StudyRecord.id).where(StudyRecord.name == identity.name)
                if session.scalar(names) is not None:
                    raise taken
                session.add(convert.study_record(identity))
        except IntegrityError:
            raise taken from None

    def study(self, name: str) -> StudyIdentity:
        """Return a study's identity; raises `UsageError` with near names if there is none."""
        with self._session() as session:
            return convert.identity(self._study(session, name))

    def studies(self) -> list[StudySummary]:
        """Return all studies, oldest first."""
        counts: dict[tuple[int, str], int] = {}
        query = select(TrialRecord.study_id, TrialRecord.state, func.count(TrialRecord.id))
        with self._session() as session:
            for study_id, state, count in session.execute(
                query.group_by(TrialRecord.study_id, TrialRecord.state)
            ):
                counts[study_id, state] = count
            records = session.scalars(
                select(StudyRecord).order_by(StudyRecord.created_at, StudyRecord.id)
            ).all()
            return [
                StudySummary(
                    convert.identity(record),
                    **{s.value: counts.get((record.id, s.value), 0) for s in TrialState},
                )
                for record in records
            ]

    def begin_trial(
        self, study: str, number: int, configuration: Configuration, *, baseline: bool, owner: Owner
    ) -> None:
        """Note that a trial runs, before anything is launched for it.

        Repeating it changes only the owner of a trial that still runs. Raises
        `OperatorNeededError` if the number was another configuration before.
        """
        with self._session() as session:
            study_id = self._study(session, study).id
            known = _trial(session, study_id, number)
            if known is None:
                session.add(convert.trial_record(study_id, number, configuration, baseline, owner))
            elif Configuration.from_json(known.configuration) != configuration:
                raise OperatorNeededError(
                    f"trial {number} of study '{study}' is stored with another configuration; "
                    "start a new study with --study"
                )
            elif known.state == TrialState.RUNNING:
                convert.set_owner(known, owner)

    def save_measurement(
        self,
        study: str,
        number: int,
        measurement: Measurement,
        raw: RawRun | None,
        *,
        warnings: Sequence[str] = (),
    ) -> None:
        """Save what a trial measured, with its raw records, in one transaction.

        Raises `ValueError`, before anything is written, for a metric that is not finite: a metric
        that could not be measured has to be absent.
        """
        for name, value in measurement.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name} is {value}; leave it out instead")
        with self._trial_session(study, number, raw) as trial:
            convert.set_measurement(trial, measurement, warnings)

    def save_failure(
        self, study: str, number: int, failure: Failure, raw: RawRun | None = None
    ) -> None:
        """Save why a trial has no measurement; raises `ValueError` if it has one."""
        with self._trial_session(study, number, raw) as trial:
            if trial.state == TrialState.MEASURED:
                raise ValueError(f"trial {number} of study '{study}' was measured")
            convert.set_failure(trial, failure)

    def trials(self, study: str) -> list[TrialRow]:
        """Return the trials of a study by number, without raw records."""
        with self._session() as session:
            query = select(*TrialRecord.__table__.columns).where(
                TrialRecord.study_id == self._study(session, study).id
            )
            rows = session.execute(query.order_by(TrialRecord.number)).all()
        return [convert.trial_row(row) for row in rows]

    def raw_run(self, study: str, number: int) -> RawRun | None:
        """Return the raw records of a trial, or None if there are none."""
        with self._session() as session:
            study_id = self._study(session, study).id
            encoded = session.scalar(
                select(RawRunRecord.encoded)
                .join(TrialRecord, TrialRecord.id == RawRunRecord.trial_id)
                .where(TrialRecord.study_id == study_id, TrialRecord.number == number)
            )
        return None if encoded is None else raw.decode(encoded)

    def add_event(self, study: str, kind: str, message: str, *, trial: int | None = None) -> None:
        """Note something that happened, at the present time."""
        with self._session() as session:
            study_id = self._study(session, study).id
            now = datetime.now(UTC)
            session.add(
                EventRecord(study_id=study_id, at=now, kind=kind, message=message, trial=trial)
            )

    def events(self, study: str) -> list[EventRow]:
        """Return the events of a study in the order they were added."""
        with self._session() as session:
            query = select(EventRecord).where(
                EventRecord.study_id == self._study(session, study).id
            )
            return [
                EventRow(at=e.at, kind=e.kind, message=e.message, trial=e.trial)
                for e in session.scalars(query.order_by(EventRecord.id))
            ]

    def set_budget(self, study: str, *, trials: int | None, hours: float | None) -> None:
        """Replace the budget of a study; None is no limit."""
        with self._session() as session:
            record = self._study(session, study)
            record.budget_trials = trials
            record.budget_s = None if hours is None else hours * 3600.0

    def add_spent_s(self, study: str, seconds: float) -> None:
        """Add wall time to what all runs of a study have spent."""
        with self._session() as session:
            study_id = self._study(session, study).id
            session.execute(
                update(StudyRecord)
                .where(StudyRecord.id == study_id)
                .values(spent_s=StudyRecord.spent_s + seconds)
            )

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on any error."""
        with (
            database_faults(self.shown),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def _trial_session(self, study: str, number: int, run: RawRun | None) -> Iterator[TrialRecord]:
        """One transaction on a begun trial, which also stores its raw records."""
        encoded = None if run is None else raw.encode(run)
        with self._session() as session:
            trial = _trial(session, self._study(session, study).id, number)
            if trial is None:
                raise ValueError(f"trial {number} of study '{study}' was not begun")
            yield trial
            if encoded is not None:
                session.merge(RawRunRecord(trial_id=trial.id, encoded=encoded))

    @staticmethod
    def _study(session: Session, name: str) -> StudyRecord:
        record = session.scalar(select(StudyRecord).where(StudyRecord.name == name))
        if record is None:
            names = session.scalars(select(StudyRecord.name)).all()
            if not names:
                raise UsageError(f"unknown study '{name}'; the store holds none yet")
            raise UsageError(unknown_name("study", name, names))
        return record

    def _check_reachable(self) -> None:
        try:
            self._engine.connect().close()
        except DBAPIError as error:
            fault = fault_of(error, self.shown)
            if isinstance(fault, OperatorNeededError) and address.file_of(self._url) is None:
                first_line = str(error.orig).strip().splitlines()[0]
                raise PreflightError(
                    f"cannot reach the database {self.shown} ({first_line}); check host, user, "
                    "password and that it runs"
                ) from error
            if fault is None:
                raise
            raise fault from error

    def _check_schema(self, *, create: bool) -> None:
        """Check the version of our tables, creating them first if that is wanted."""
        with self._engine.connect() as connection:
            present = inspect(connection).has_table(SchemaRecord.__tablename__)
            version = connection.scalar(select(SchemaRecord.version)) if present else None
        if version is None and not create:
            raise UsageError(address.missing(self.shown))
        if version is not None and version != SCHEMA_VERSION:
            raise PreflightError(
                f"the store {self.shown} has schema {version}, this tuner reads {SCHEMA_VERSION}; "
                "upgrade tuner or name another store with --store"
            )
        if version is None:
            self._create_tables()

    def _create_tables(self) -> None:
        with self._engine.connect() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": _CREATION_LOCK})
            Base.metadata.create_all(connection)
            if connection.scalar(select(SchemaRecord.version)) is None:
                connection.execute(insert(SchemaRecord).values(version=SCHEMA_VERSION))
            connection.commit()


def _trial(session: Session, study_id: int, number: int) -> TrialRecord | None:
    return session.scalar(
        select(TrialRecord).where(TrialRecord.study_id == study_id, TrialRecord.number == number)
    )
