"""Study lock: one writer per study, by flock (SQLite) or an advisory lock (PostgreSQL)."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from tuner.errors import OperatorNeededError, PreflightError
from tuner.host.files.private import open_private, private_folder
from tuner.host.locks import try_lock
from tuner.store.address import database_engine, file_of, parse_address, shown
from tuner.store.faults import BUSY_TIMEOUT_S, StoreAwayError, database_faults


class StudyLock(Protocol):
    """The write lock of one study, held."""

    def check(self) -> None:
        """Raise `StoreAwayError` if it was lost, `OperatorNeededError` if its store was."""

    def take_again(self) -> None:
        """Take it again if it was lost.

        Raises `StoreAwayError` while that is impossible, and `OperatorNeededError` if another
        process has it now.
        """


def study_lock(store_url: str | Path, study: str) -> AbstractContextManager[StudyLock]:
    """Hold the write lock of `study` during the `with` block; it is to be checked now and then.

    A SQLite store uses a lock file beside it, PostgreSQL an advisory lock of one connection. The
    lock dies with its holder. A program started meanwhile does not inherit it; a bare `os.fork`
    does. Raises `PreflightError` naming the holder if another process holds it.
    """
    url = parse_address(store_url)
    path = file_of(url)
    return _server_lock(url, study) if path is None else _file_lock(path, study)


def study_holder(store_url: str | Path, study: str) -> str | None:
    """Return the present writer of `study`, such as `process 41`; None if there is none.

    To find out, it briefly takes a shared lock on a SQLite store's lock file, if there is one.
    """
    url = parse_address(store_url)
    path = file_of(url)
    return _server_holder(url, study) if path is None else _file_holder(lock_path(path, study))


def _file_holder(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if try_lock(descriptor, shared=True) else _named(descriptor)
    finally:
        os.close(descriptor)


def _named(descriptor: int) -> str:
    holder = os.pread(descriptor, 64, 0).decode(errors="replace").partition("\n")[0]
    return f"process {holder or 'that is just starting'}"


def lock_path(store: Path, study: str) -> Path:
    """Return the lock file of a study, whose name may contain any character."""
    return store.with_name(f"{store.name}.{hashlib.sha256(study.encode()).hexdigest()[:12]}.lock")


class _FileLock:
    """A lock that lives as long as this process; the store's file may be lost all the same."""

    def __init__(self, store: Path, study: str) -> None:
        self._store = store
        self._study = study
        self._found = _identity(store)

    def check(self) -> None:
        """Raise `OperatorNeededError` if the store's file is another one, or gone."""
        now = _identity(self._store)
        if self._found is None:
            self._found = now
        elif now != self._found:
            what = "is gone" if now is None else "was replaced by another file"
            raise OperatorNeededError(
                f"the store {self._store} {what} while study '{self._study}' ran; what was "
                "measured is in its measurement log: put the store back and run `tuner resume "
                f"{self._study}`, or make a new one with `tuner store rebuild NEW.db --store "
                f"{self._store}`"
            )

    def take_again(self) -> None:
        """Check it: it cannot be lost."""
        self.check()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino)


@contextmanager
def _file_lock(store: Path, study: str) -> Iterator[StudyLock]:
    path = lock_path(store, study)
    descriptor = _acquire(path, study)
    try:
        with suppress(OSError):  # a full disk: the lock still holds, without naming its holder
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n{study}\n".encode())
        yield _FileLock(store, study)
    finally:
        path.unlink(missing_ok=True)  # while still held: it cannot be another process's new file
        os.close(descriptor)


def _acquire(path: Path, study: str) -> int:
    """Return a locked close-on-exec descriptor of the file that is now at `path`."""
    while True:
        try:
            private_folder(path.parent)
            descriptor = open_private(path, os.O_RDWR)
        except OSError as error:
            raise PreflightError(
                f"cannot lock study '{study}' ({path}: {error.strerror}); make the folder of the "
                "store writable"
            ) from None
        if not try_lock(descriptor):
            holder = _named(descriptor)
            os.close(descriptor)
            raise _held(study, holder)
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # the holder before us removed this file


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class _ServerLock:
    """An advisory lock, which PostgreSQL gives back when its connection ends, for any reason."""

    def __init__(self, engine: Engine, where: str, study: str) -> None:
        self._engine = engine
        self._where = where
        self._study = study
        self._me = f"tuner {os.getpid()} on {socket.gethostname()}"[:63]
        self._connection: Connection | None = None

    def take(self) -> None:
        """Take it; raises `PreflightError` naming the holder if another process has it."""
        holder = self._other_holder()
        if holder is not None:
            raise _held(self._study, f"process {holder.removeprefix('tuner ')}")

    def check(self) -> None:
        """Raise `StoreAwayError` if the connection that holds it is not there any more."""
        if self._connection is not None:
            try:
                with database_faults(self._where):
                    if self._connection.scalar(text(_MINE), {"k": _key(self._study)}):
                        return
            except StoreAwayError:
                pass
            self.release()
        raise StoreAwayError(
            f"the database {self._where} ended the connection that keeps other tuners from study "
            f"'{self._study}'; see that it is up, then run `tuner resume {self._study}`"
        )

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
                    return None
                holder = connection.scalar(text(_HOLDER), key)
            except BaseException:
                self.release()
                raise
        self.release()
        return "unknown" if holder is None else str(holder)


@contextmanager
def _server_lock(url: URL, study: str) -> Iterator[StudyLock]:
    engine = database_engine(url, busy_timeout_s=BUSY_TIMEOUT_S)
    lock = _ServerLock(engine, shown(url), study)
    try:
        lock.take()
        yield lock
    finally:
        lock.release()
        engine.dispose()


def _key(study: str) -> int:
    return int.from_bytes(hashlib.sha256(b"tuner\0" + study.encode()).digest()[:8], signed=True)


def _server_holder(url: URL, study: str) -> str | None:
    engine = database_engine(url, busy_timeout_s=BUSY_TIMEOUT_S)
    try:
        with database_faults(shown(url)), engine.connect() as connection:
            holder = connection.scalar(text(_HOLDER), {"k": _key(study)})
    finally:
        engine.dispose()
    return None if holder is None else f"process {holder.removeprefix('tuner ')}"


_MINE = """
    SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
      AND pid = pg_backend_pid()
      AND ((classid::bigint << 32) | objid::bigint) = :k AND objsubid = 1)
"""

_HOLDER = """
    SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted
      AND ((l.classid::bigint << 32) | l.objid::bigint) = :k AND l.objsubid = 1 LIMIT 1
"""


def _held(study: str, holder: str) -> PreflightError:
    return PreflightError(
        f"study '{study}' is being run by {holder}; wait for it, end it, or name another study "
        "with --study"
    )
