"""Study lock of a SQLite store: flock on a file beside it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from sqlalchemy import Engine

from tuner.errors import OperatorNeededError, PreflightError
from tuner.host.files.private import open_private, private_folder
from tuner.host.locks import is_at, try_lock
from tuner.store.faults import StoreBusyError
from tuner.store.lock.protocol import HeldError, StudyLock, held_by

_TABLES = "\0tables"  # no study has this name
_TABLES_S = 60.0
_POLL_S = 0.05


def lock_path(store: Path, study: str) -> Path:
    """Return the lock file of a study, whose name may contain any character."""
    return store.with_name(f"{store.name}.{hashlib.sha256(study.encode()).hexdigest()[:12]}.lock")


def file_holder(path: Path) -> str | None:
    """Return the present writer that a lock file names; see `study_holder`."""
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

    def fence(self, engine: Engine) -> AbstractContextManager[None]:
        """Do nothing: it cannot be lost."""
        return nullcontext()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino)


@contextmanager
def tables_lock(store: Path) -> Iterator[None]:
    """Hold the lock under which tables are made; waits for it.

    Raises `StoreBusyError`, and `PreflightError` if its file cannot be used.
    """
    end_s = time.monotonic() + _TABLES_S
    while True:
        try:
            descriptor = _acquire(lock_path(store, _TABLES), _TABLES)
            break
        except HeldError:
            if time.monotonic() > end_s:
                raise StoreBusyError(
                    f"another process has been setting up the store {store} for {_TABLES_S:g} s; "
                    "see what it waits for, then try again"
                ) from None
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        lock_path(store, _TABLES).unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def file_lock(store: Path, study: str) -> Iterator[StudyLock]:
    """Hold the lock of a study; see `study_lock`."""
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
            what = "the tables" if study == _TABLES else f"study '{study}'"
            raise PreflightError(
                f"cannot lock {what} ({path}: {error.strerror}); make the folder of the "
                "store writable"
            ) from None
        if not try_lock(descriptor):
            holder = _named(descriptor)
            os.close(descriptor)
            raise held_by(study, holder)
        if is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # the holder before us removed this file
