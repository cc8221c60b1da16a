"""Study lock of a PostgreSQL store: an advisory lock of one connection."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, Row, event, text
from sqlalchemy.exc import DBAPIError

from tuner.errors import OperatorNeededError
from tuner.store.address import database_engine, shown
from tuner.store.faults import BUSY_TIMEOUT_S, StoreAwayError, database_faults
from tuner.store.lock.protocol import StudyLock, held_by

_COMMITS_S = 10


class _ServerLock:
    """An advisory lock, which PostgreSQL gives back when its connection ends, for any reason.

    So that nothing is written after that, a commit holds a second lock, shared among the run's
    commits, from when it looks whether the first is still held. Who takes the first lock waits for
    the second: whatever was committed under an earlier holder is then there to be read.
    """

    def __init__(self, engine: Engine, where: str, study: str) -> None:
        self._engine = engine
        self._where = where
        self._study = study
        self._me = f"tuner {os.getpid()} on {socket.gethostname()}"[:63]
        self._connection: Connection | None = None
        self._backend_pid = 0

    def take(self) -> None:
        """Take it; raises `PreflightError` naming the holder if another process has it."""
        holder = self._other_holder()
        if holder is not None:
            raise held_by(self._study, f"process {holder.removeprefix('tuner ')}")

    def check(self) -> None:
        """Raise `StoreAwayError` if the connection that holds it is not there any more."""
        if self._connection is not None:
            try:
                with database_faults(self._where):
                    holder = _holder(self._connection, self._study)
                    if holder is not None and holder.is_this_connection:
                        return
            except StoreAwayError:
                pass
            self.release()
        raise self._lost()

    def take_again(self) -> None:
        """Take it again if it was lost; see `StudyLock.take_again`."""
        with suppress(StoreAwayError):
            self.check()
            return
        holder = self._other_holder()
        if holder == self._me:
            raise StoreAwayError(
                f"the database {self._where} has not noticed yet that a connection of this run "
                f"ended; run `tuner resume {self._study}` when it has"
            )
        if holder is not None:
            raise OperatorNeededError(
                f"the database {self._where} was away, and meanwhile study '{self._study}' was "
                f"taken over by process {holder.removeprefix('tuner ')}, so this run ended; what "
                "it measured is stored"
            )

    @contextmanager
    def fence(self, engine: Engine) -> Iterator[None]:
        """Let no transaction of that engine commit once it is lost; see `StudyLock.fence`."""
        event.listen(engine, "commit", self._require_held)
        try:
            yield
        finally:
            event.remove(engine, "commit", self._require_held)

    def _require_held(self, connection: Connection) -> None:
        """Raise `StoreAwayError` if it is not held now; else it stays so until the commit."""
        with database_faults(self._where):
            connection.execute(
                text("SELECT pg_advisory_xact_lock_shared(:k)"), {"k": _commits_key(self._study)}
            )
            holder = _holder(connection, self._study)
        # not the pid alone: after a restart of the server it may be that of another host
        found = None if holder is None else (holder.pid, holder.application_name)
        if found != (self._backend_pid, self._me):
            raise self._lost()

    def _lost(self) -> StoreAwayError:
        return StoreAwayError(
            f"the database {self._where} ended the connection that keeps other tuners from study "
            f"'{self._study}'; see that it is up, then run `tuner resume {self._study}`"
        )

    def release(self) -> None:
        """End the connection, and so the lock."""
        if self._connection is not None:
            with suppress(DBAPIError):
                self._connection.invalidate()  # not to the pool: the lock is the connection's
            with suppress(DBAPIError):
                self._connection.close()
            self._connection = None

    def _other_holder(self) -> str | None:
        """Try to take it; return the name of its holder if that fails."""
        with database_faults(self._where):
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._connection = connection
            try:
                connection.execute(
                    text("SELECT set_config('application_name', :n, false)"), {"n": self._me}
                )
                key = {"k": _key(self._study)}
                if connection.scalar(text("SELECT pg_try_advisory_lock(:k)"), key):
                    self._backend_pid = connection.scalar(text("SELECT pg_backend_pid()")) or 0
                    self._await_commits(connection)
                    return None
                holder = _holder(connection, self._study)
            except BaseException:
                self.release()
                raise
        self.release()
        return "unknown" if holder is None else str(holder.application_name)

    def _await_commits(self, connection: Connection) -> None:
        """Wait for commits of an earlier holder; raises an error of the database after 10 s."""
        key = {"k": _commits_key(self._study)}
        timeout = {"t": f"{_COMMITS_S}s"}
        connection.execute(text("SELECT set_config('lock_timeout', :t, false)"), timeout)
        connection.execute(text("SELECT pg_advisory_lock(:k)"), key)
        connection.execute(text("SELECT pg_advisory_unlock(:k)"), key)


@contextmanager
def server_lock(url: URL, study: str) -> Iterator[StudyLock]:
    """Hold the lock of a study; see `study_lock`."""
    engine = database_engine(url, busy_timeout_s=BUSY_TIMEOUT_S)
    lock = _ServerLock(engine, shown(url), study)
    try:
        lock.take()
        yield lock
    finally:
        lock.release()
        engine.dispose()


def _key(study: str, prefix: bytes = b"tuner\0") -> int:
    return int.from_bytes(hashlib.sha256(prefix + study.encode()).digest()[:8], signed=True)


def _commits_key(study: str) -> int:
    return _key(study, b"tuner commits\0")


def server_holder(url: URL, study: str) -> str | None:
    """Return the present writer of a study; see `study_holder`."""
    engine = database_engine(url, busy_timeout_s=BUSY_TIMEOUT_S)
    try:
        with database_faults(shown(url)), engine.connect() as connection:
            holder = _holder(connection, study)
    finally:
        engine.dispose()
    return None if holder is None else f"process {holder.application_name.removeprefix('tuner ')}"


_HOLDER = """
    SELECT l.pid, a.application_name, l.pid = pg_backend_pid() AS is_this_connection
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((l.classid::bigint << 32) | l.objid::bigint) = :k
"""


def _holder(connection: Connection, study: str) -> Row[Any] | None:
    return connection.execute(text(_HOLDER), {"k": _key(study)}).first()
