"""Store of studies: every write is a transaction that is on disk when the call returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import URL, Connection, Engine, Row, delete, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError, PreflightError, UsageError
from tuner.records import Failure, Measurement, RawRun, Timing
from tuner.store import address, convert, raw
from tuner.store.comparisons import ComparisonTable
from tuner.store.faults import BUSY_TIMEOUT_S, database_faults, fault_of, optuna_faults, readable
from tuner.store.inputs.study_files import StudyFile, StudyFileTable, rows_of
from tuner.store.lock.protocol import StudyLock
from tuner.store.log.measurement_log import log_folder_of, log_path_of
from tuner.store.migrate import require_schema
from tuner.store.optuna_tables import made_alone
from tuner.store.repeats import RepeatTables, add_spent, require_finite, study_id_of, study_of
from tuner.store.rows import (
    EventRow,
    RepeatKind,
    StudyIdentity,
    StudySummary,
    TrialOwner,
    TrialRow,
    TrialState,
)
from tuner.store.schema import EVENTS, RAW_RUNS, REPEATS, STUDIES, STUDY_FILES, TRIALS, add_row
from tuner.store.upkeep.probing import probe_file, probe_server

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


class Store:
    """Studies, trials and events of one database. Safe to use from several threads."""

    def __init__(self, url: URL, engine: Engine, *, busy_timeout_s: float) -> None:
        self._url = url
        self._engine = engine
        self._busy_timeout_s = busy_timeout_s
        self._optuna_storages: list[RDBStorage] = []
        self._lock: StudyLock | None = None
        self._fences = ExitStack()

    @classmethod
    def open(cls, url: str | Path, *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Self:
        """Open the store at a path or URL; `create` makes one; an older one is migrated.

        Raises `UsageError` if there is none, `PreflightError` if it cannot be used from here and
        `OperatorNeededError` if it is damaged; the file then stays unchanged.
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
                require_schema(engine, store.shown, create=create)
        except BaseException:
            store.close()
            raise
        return store

    @property
    def url(self) -> str:
        """The full URL, with the password if there is one: never show it."""
        return self._url.render_as_string(hide_password=False)

    @property
    def parsed_url(self) -> URL:
        """The parsed URL."""
        return self._url

    @property
    def shown(self) -> str:
        """The store's address for messages, without its password."""
        return address.shown(self._url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, also Optuna's; the next use opens new ones."""
        for storage in self._optuna_storages:
            storage.remove_session()
            storage.engine.dispose()
        self._engine.dispose()

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for a server."""
        return address.file_of(self._url)

    def log_path(self, study: str, state_folder: Path) -> Path:
        """Return the path of a study's measurement log."""
        return log_path_of(log_folder_of(self._url, state_folder), study)

    def probe(self) -> None:
        """Raise the fault that a write would hit now; see `tuner.store.upkeep.probing`."""
        if self.path is None:
            probe_server(self._engine, self.shown)
        else:
            probe_file(self.path)

    def optuna_storage(self) -> RDBStorage:
        """Return Optuna's storage in the same database; its tables are created if missing."""
        from optuna.storages import RDBStorage

        options = address.engine_options(self._url, busy_timeout_s=self._busy_timeout_s)
        with self.optuna_faults(), made_alone(self._engine, self.path):
            storage = RDBStorage(self.url, engine_kwargs=options)
        self._optuna_storages.append(storage)
        if self._lock is not None:
            self._fences.enter_context(self._lock.fence(storage.engine))
        return storage

    def optuna_faults(self) -> AbstractContextManager[None]:
        """Wrap calls of Optuna: database faults become the errors that this class raises."""
        return optuna_faults(self.shown)

    def create_study(self, identity: StudyIdentity, files: Sequence[StudyFile] = ()) -> None:
        """Add a study with the files that it needs; raises `UsageError` if the name is taken."""
        taken = UsageError(
            f"study '{identity.name}' exists already; go on with `tuner resume {identity.name}`, "
            "or name another with --study"
        )
        try:
            with self.session() as session:
                names = select(STUDIES.c.id).where(STUDIES.c.name == identity.name)
                if session.scalar(names) is not None:
                    raise taken
                study_id = add_row(session, STUDIES, convert.study_values(identity))
                for file in rows_of(study_id, files):
                    add_row(session, STUDY_FILES, file)
        except IntegrityError:
            raise taken from None

    def study(self, name: str) -> StudyIdentity:
        """Return a study's identity; raises `UsageError` with near names if there is none."""
        with self.session() as session, readable(f"study '{name}'"):
            return convert.identity(study_of(session, name))

    def identities(self) -> list[StudyIdentity]:
        """Return all studies, oldest first, without reading their trials."""
        with self.session() as session, readable("a study"):
            return [convert.identity(row) for row in _studies(session)]

    def studies(self) -> list[StudySummary]:
        """Return all studies with the counts of their trials, oldest first."""
        counts: dict[tuple[int, str], int] = {}
        query = select(TRIALS.c.study_id, TRIALS.c.state, func.count(TRIALS.c.id))
        with self.session() as session, readable("a study"):
            for study_id, state, count in session.execute(
                query.group_by(TRIALS.c.study_id, TRIALS.c.state)
            ):
                counts[study_id, state] = count
            confirmed = select(REPEATS.c.study_id, func.count(REPEATS.c.id)).where(
                REPEATS.c.kind == RepeatKind.CONFIRMATION,
                REPEATS.c.state == TrialState.MEASURED,
            )
            confirmations: dict[int, int] = {
                row[0]: row[1] for row in session.execute(confirmed.group_by(REPEATS.c.study_id))
            }
            return [
                StudySummary(
                    convert.identity(row),
                    **{s.value: counts.get((row.id, s.value), 0) for s in TrialState},
                    confirmations=confirmations.get(row.id, 0),
                )
                for row in _studies(session)
            ]

    @property
    def repeats(self) -> RepeatTables:
        """The repeats of trials."""
        return RepeatTables(self.session)

    @property
    def files(self) -> StudyFileTable:
        """The files that studies were started with."""
        return StudyFileTable(self.session)

    @property
    def comparisons(self) -> ComparisonTable:
        """The comparison points from other tools."""
        return ComparisonTable(self.session)

    def begin_trial(
        self,
        study: str,
        number: int,
        configuration: Configuration,
        *,
        baseline: bool,
        owner: TrialOwner,
    ) -> None:
        """Record that a trial starts, before anything is launched for it.

        A repeated call only changes the owner of a trial that still runs. Raises
        `OperatorNeededError` if the number belongs to another configuration.
        """
        with self.session() as session:
            study_id = study_id_of(session, study)
            known = _trial(session, study_id, number)
            if known is None:
                values = convert.trial_values(study_id, number, configuration, baseline, owner)
                add_row(session, TRIALS, values)
            elif Configuration.from_json(known.configuration) != configuration:
                raise OperatorNeededError(
                    f"trial {number} of study '{study}' is stored with another configuration; "
                    "start a new study with --study"
                )
            elif known.state == TrialState.RUNNING:
                owned = update(TRIALS).where(TRIALS.c.id == known.id)
                session.execute(owned.values(convert.owner_values(owner)))

    def save_measurement(
        self,
        study: str,
        number: int,
        measurement: Measurement,
        raw: RawRun | None,
        *,
        warnings: Sequence[str] = (),
        timing: Timing | None = None,
        spent_s: float = 0.0,
    ) -> None:
        """Save a trial's measurement with its raw records, in one transaction.

        `spent_s` is added to the study's wall time, s, unless the trial has ended before.
        Raises `ValueError`, before anything is written, for a metric that is not finite: a metric
        that could not be measured must be absent.
        """
        require_finite(measurement)
        values = convert.ended_values(measurement, timing, warnings)
        self._end_trial(study, number, values, raw, spent_s)

    def save_failure(
        self,
        study: str,
        number: int,
        failure: Failure,
        raw: RawRun | None = None,
        *,
        timing: Timing | None = None,
        spent_s: float = 0.0,
    ) -> None:
        """Save a trial's failure, as a measurement; `ValueError` if it has one."""
        self._end_trial(study, number, convert.ended_values(failure, timing), raw, spent_s)

    def trials(self, study: str) -> list[TrialRow]:
        """Return the trials of a study by number, without raw records.

        As all that reads rows, it raises `OperatorNeededError` for one that cannot be read.
        """
        with self.session() as session, readable(f"a trial of study '{study}'"):
            query = select(TRIALS).where(TRIALS.c.study_id == study_id_of(session, study))
            rows = session.execute(query.order_by(TRIALS.c.number)).all()
        return [convert.trial_row(row) for row in rows]

    def states(self, study: str) -> dict[int, TrialState]:
        """Return the state of each trial by number, without reading measurements."""
        with self.session() as session, readable(f"a trial of study '{study}'"):
            query = select(TRIALS.c.number, TRIALS.c.state).where(
                TRIALS.c.study_id == study_id_of(session, study)
            )
            return {number: TrialState(state) for number, state in session.execute(query)}

    def trial(self, study: str, number: int) -> TrialRow | None:
        """Return one trial without its raw records, or None if there is none of that number."""
        with self.session() as session, readable(f"trial {number}"):
            query = select(TRIALS).where(
                TRIALS.c.study_id == study_id_of(session, study), TRIALS.c.number == number
            )
            row = session.execute(query).one_or_none()
        return None if row is None else convert.trial_row(row)

    def raw_run(self, study: str, number: int) -> RawRun | None:
        """Return the raw records of a trial, or None if there are none."""
        with self.session() as session:
            study_id = study_id_of(session, study)
            encoded = session.scalar(
                select(RAW_RUNS.c.encoded)
                .join(TRIALS, TRIALS.c.id == RAW_RUNS.c.trial_id)
                .where(TRIALS.c.study_id == study_id, TRIALS.c.number == number)
            )
        return None if encoded is None else raw.decode(encoded)

    def add_event(self, study: str, kind: str, message: str, *, trial: int | None = None) -> None:
        """Add an event with the present time."""
        with self.session() as session:
            study_id = study_id_of(session, study)
            now = datetime.now(UTC)
            event = {"study_id": study_id, "at": now, "kind": kind, "message": message}
            add_row(session, EVENTS, {**event, "trial": trial})

    def events(self, study: str) -> list[EventRow]:
        """Return the events of a study in the order they were added."""
        with self.session() as session, readable(f"an event of study '{study}'"):
            query = select(EVENTS).where(EVENTS.c.study_id == study_id_of(session, study))
            rows = session.execute(query.order_by(EVENTS.c.id)).all()
            return [convert.event_row(row) for row in rows]

    def set_budget(self, study: str, *, trials: int | None, hours: float | None) -> None:
        """Replace the budget of a study; None is no limit."""
        budget_s = None if hours is None else hours * 3600.0
        self._set_on(study, budget_trials=trials, budget_s=budget_s)

    def set_finished(self, study: str, at: datetime | None) -> None:
        """Set when search and confirmation were over; None while the study is unfinished."""
        self._set_on(study, finished_at=at)

    def add_spent_s(self, study: str, seconds: float) -> None:
        """Add wall time, s, to the total of all runs of a study."""
        with self.session() as session:
            add_spent(session, study_id_of(session, study), seconds)

    def _set_on(self, study: str, **values: Any) -> None:
        with self.session() as session:
            study_id = study_id_of(session, study)
            session.execute(update(STUDIES).where(STUDIES.c.id == study_id).values(values))

    @contextmanager
    def written_under(self, lock: StudyLock) -> Iterator[None]:
        """Commit nothing in the `with` block, in Optuna's tables neither, once the lock is lost."""
        with ExitStack() as self._fences:
            self._fences.enter_context(lock.fence(self._engine))
            self._lock = lock
            try:
                yield
            except UsageError:  # the study may be unknown in a file that took the store's place
                lock.check()
                raise
            finally:
                self._lock = None

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back on any error."""
        with database_faults(self.shown), self._engine.begin() as connection:
            yield connection

    def _end_trial(
        self, study: str, number: int, values: convert.Values, run: RawRun | None, spent_s: float
    ) -> None:
        """Store how a started trial ended, and what comes with it, in one transaction."""
        encoded = None if run is None else raw.encode(run)
        with self.session() as session:
            study_id = study_id_of(session, study)
            trial = _trial(session, study_id, number)
            if trial is None:
                raise ValueError(f"trial {number} of study '{study}' was not begun")
            if trial.state == TrialState.MEASURED and values["state"] != trial.state:
                raise ValueError(f"trial {number} of study '{study}' was measured")
            session.execute(update(TRIALS).where(TRIALS.c.id == trial.id).values(values))
            if encoded is not None:
                session.execute(delete(RAW_RUNS).where(RAW_RUNS.c.trial_id == trial.id))
                add_row(session, RAW_RUNS, {"trial_id": trial.id, "encoded": encoded})
            if trial.state == TrialState.RUNNING:
                add_spent(session, study_id, spent_s)

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


def _studies(session: Connection) -> Sequence[Row[Any]]:
    return session.execute(select(STUDIES).order_by(STUDIES.c.created_at, STUDIES.c.id)).all()


def _trial(session: Connection, study_id: int, number: int) -> Row[Any] | None:
    of_study = select(TRIALS).where(TRIALS.c.study_id == study_id)
    return session.execute(of_study.where(TRIALS.c.number == number)).one_or_none()
