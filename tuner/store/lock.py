"""Study lock: one writer per study, by flock (SQLite) or an advisory lock (PostgreSQL)."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, text

from tuner.errors import PreflightError
from tuner.host.files.private import open_private, private_folder
from tuner.host.locks import try_lock
from tuner.store.address import database_engine, file_of, parse_address, shown
from tuner.store.faults import BUSY_TIMEOUT_S, database_faults


def study_lock(store_url: str | Path, study: str) -> AbstractContextManager[None]:
    """Hold the write lock of `study` during the `with` block.

    A SQLite store uses a lock file beside it, PostgreSQL an advisory lock of one connection. The
    lock dies with its holder. A program started meanwhile does not inherit it; a bare `os.fork`
    does. Raises `PreflightError` naming the holder if another process holds it.
    """
    url = parse_address(store_url)
    path = file_of(url)
    return _server_lock(url, study) if path is None else _file_lock(lock_path(path, study), study)


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


@contextmanager
def _file_lock(path: Path, study: str) -> Iterator[None]:
    descriptor = _acquire(path, study)
    try:
        with suppress(OSError):  # a full disk: the lock still holds, without naming its holder
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n{study}\n".encode())
        yield
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


@contextmanager
def _server_lock(url: URL, study: str) -> Iterator[None]:
    key = _key(study)
    engine = database_engine(url, busy_timeout_s=BUSY_TIMEOUT_S)
    try:
        with (
            database_faults(shown(url)),
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            name = f"tuner {os.getpid()} on {socket.gethostname()}"[:63]
            connection.execute(
                text("SELECT set_config('application_name', :n, false)"), {"n": name}
            )
            got = connection.scalar(text("SELECT pg_try_advisory_lock(:k)"), {"k": key})
            if not got:
                holder = connection.scalar(text(_HOLDER), {"k": key})
                raise _held(study, f"process {(holder or 'unknown').removeprefix('tuner ')}")
            try:
                yield
            finally:
                connection.invalidate()  # the lock is the connection's: end it, do not pool it
    finally:
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
