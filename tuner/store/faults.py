"""Database faults: locked, full, corrupt or unreachable, each mapped to an error for the user."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tuner.errors import OperatorNeededError, PreflightError, TunerError

BUSY_TIMEOUT_S = 120.0  # a dashboard or a backup may hold the store for a minute


class StoreBusyError(OperatorNeededError):
    """Another process holds the store; waiting may help."""


class StoreFullError(OperatorNeededError):
    """There is no space for the store; waiting may help."""


@contextmanager
def database_faults(where: str) -> Iterator[None]:
    """Map faults of the database at `where` to errors for the user; others are bugs."""
    try:
        yield
    except DBAPIError as error:
        fault = fault_of(error, where)
        if fault is None:
            raise
        raise fault from error
    except PoolTimeoutError as error:
        raise OperatorNeededError(
            f"no connection to the store {where} became free; see what holds them, then run "
            "`tuner resume`"
        ) from error


@contextmanager
def optuna_faults(where: str) -> Iterator[None]:
    """Like `database_faults`, for calls of Optuna, which wraps the error in its own."""
    from optuna.exceptions import StorageInternalError

    try:
        with database_faults(where):
            yield
    except StorageInternalError as error:
        cause = error.__cause__
        fault = fault_of(cause, where) if isinstance(cause, DBAPIError) else None
        if fault is None:
            raise
        raise fault from error


def fault_of(error: DBAPIError, where: str) -> TunerError | None:
    """Return the error for the user, or None if the fault is a bug of the tuner."""
    if isinstance(error.orig, sqlite3.Error):
        return sqlite_fault(error.orig, where)
    if error.connection_invalidated or type(error).__name__ == "OperationalError":
        first_line = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "lost"
        return OperatorNeededError(
            f"the database {where} failed ({first_line}); see that it is up and has space, then "
            "run `tuner resume`"
        )
    return None


def sqlite_fault(error: sqlite3.Error, where: str) -> TunerError | None:
    """Return the error for the user for an error of SQLite, or None if it is a tuner bug."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreBusyError(
            f"the store {where} stayed locked by another process (a dashboard, a backup?); end "
            "that process, then run `tuner resume`"
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return corrupt(where, str(error))
    if name.startswith("SQLITE_FULL"):
        return full(where)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return PreflightError(
            f"cannot write the store {where} ({error}); make file and folder writable or name "
            "another with --store"
        )
    if name.startswith("SQLITE_IOERR"):
        return OperatorNeededError(
            f"the disk failed under the store {where} ({error}); check disk and space, then run "
            "`tuner resume`"
        )
    return None


def full(where: str) -> StoreFullError:
    """Return the error for a full disk."""
    return StoreFullError(
        f"no space is left for the store {where}; free some, then run `tuner resume`: what was "
        "measured is kept"
    )


def corrupt(where: str, detail: str) -> OperatorNeededError:
    """Return the error for a damaged SQLite file."""
    return OperatorNeededError(
        f"the store {where} is corrupt ({detail}) and was left untouched; make a new one "
        f"with `tuner store rebuild NEW.db --store {where}`, restore a backup, or save what can be "
        f"read with `sqlite3 {where} .recover`"
    )
