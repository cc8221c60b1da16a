"""Study lock: one writer per study."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tuner.store.address import file_of, parse_address
from tuner.store.lock.file_lock import file_holder, file_lock, lock_path
from tuner.store.lock.protocol import StudyLock
from tuner.store.lock.server_lock import server_holder, server_lock


def study_lock(store_url: str | Path, study: str) -> AbstractContextManager[StudyLock]:
    """Hold the write lock of `study` during the `with` block; it is to be checked now and then.

    A SQLite store uses a lock file beside it, PostgreSQL an advisory lock of one connection. The
    lock dies with its holder. A program started meanwhile does not inherit it; a bare `os.fork`
    does. Raises `PreflightError` naming the holder if another process holds it.
    """
    url = parse_address(store_url)
    path = file_of(url)
    return server_lock(url, study) if path is None else file_lock(path, study)


def study_holder(store_url: str | Path, study: str) -> str | None:
    """Return the present writer of `study`, such as `process 41`; None if there is none.

    To find out, it briefly takes a shared lock on a SQLite store's lock file, if there is one.
    """
    url = parse_address(store_url)
    path = file_of(url)
    return server_holder(url, study) if path is None else file_holder(lock_path(path, study))
