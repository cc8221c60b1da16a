"""Database faults: locked, full, corrupt or away, each mapped to an error for the user."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tuner.errors import OperatorNeededError, PreflightError, TunerError

BUSY_TIMEOUT_S = 120.0  # a dashboard or a backup may hold the store for a minute


class StoreBusyError(OperatorNeededError):
    """Another process holds the store; waiting may help."""


class StoreFullError(OperatorNeededError):
    """There is no space for the store; waiting may help."""


class StoreAwayError(OperatorNeededError):
    """The database server does not answer, or ended a connection; waiting may help."""


# what another attempt may mend: https://www.postgresql.org/docs/current/errcodes-appendix.html
_BUSY_CODES = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available
_FULL_CODES = ("53100",)
_AWAY_CODES = ("08", "53", "57P", "58", "25006")  # connection, resources, shutdown, a standby


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
    except (StorageInternalError, PendingRollbackError) as error:
        fault = _wrapped_fault(error, where)
        if fault is None:
            raise
        raise fault from error


def _wrapped_fault(error: BaseException, where: str) -> TunerError | None:
    """Return the fault behind an error, however deep: Optuna wraps what SQLAlchemy has wrapped."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DBAPIError):
            return fault_of(seen, where)
        if isinstance(seen, PendingRollbackError) and seen.__cause__ is seen.__context__ is None:
            return away(where, "a transaction was cut off")  # by a fault told before
        seen = seen.__cause__ or seen.__context__
    return None


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn what a damaged row, or one that another program wrote, raises into an error to show.

    `what` is the row or table, such as `trial 7`. A deep JSON text is a `RecursionError`.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise _unreadable(what, str(error)) from error
    except RecursionError as error:
        raise _unreadable(what, "too deep") from error


def _unreadable(what: str, why: str) -> OperatorNeededError:
    first_line, what = " ".join(why.split())[:200], what[:100]
    return OperatorNeededError(
        f"{what} of the store cannot be read ({first_line}): it is damaged, or another program "
        "wrote it; restore a backup, or make a new store with `tuner store rebuild NEW.db`"
    )


def fault_of(error: DBAPIError, where: str) -> TunerError | None:
    """Return the error for the user, or None if the fault is a bug of the tuner."""
    if isinstance(error.orig, sqlite3.Error):
        return sqlite_fault(error.orig, where)
    code = getattr(error.orig, "sqlstate", None) or ""
    if code.startswith(_FULL_CODES):
        return full(where)
    first_line = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "lost"
    if code.startswith(_BUSY_CODES):
        return StoreBusyError(
            f"the database {where} kept this run waiting ({first_line}); see what else uses it, "
            "then run `tuner resume`"
        )
    is_connection = error.connection_invalidated or isinstance(error, InterfaceError)
    if is_connection or code.startswith(_AWAY_CODES) or isinstance(error, OperationalError):
        return away(where, first_line)
    return None


def away(where: str, detail: str) -> StoreAwayError:
    """Return the error for a database server that does not answer."""
    return StoreAwayError(
        f"the database {where} failed ({detail}); see that it is up and has space, then run "
        "`tuner resume`"
    )


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
        if name == "SQLITE_READONLY_DBMOVED" or _has_rights(Path(where)):
            return OperatorNeededError(
                f"the store {where} was deleted, moved or replaced while it was open ({error}); "
                "what was measured is in its measurement logs: put the store back and run `tuner "
                f"resume`, or make a new one with `tuner store rebuild NEW.db --store {where}`"
            )
        return PreflightError(
            f"cannot write the store {where} ({error}); make file and folder writable or name "
            "another with --store"
        )
    if "no such column" in str(error) or "Could not decode" in str(error):
        return OperatorNeededError(
            f"the store {where} was changed by another program ({error}); restore a backup, or "
            f"make a new one with `tuner store rebuild NEW.db --store {where}`"
        )
    if name == "SQLITE_ERROR" and "no such table" in str(error):
        return OperatorNeededError(
            f"the store {where} has lost its tables ({error}): it was emptied, or replaced by "
            f"another file; make a new one from its measurement logs with `tuner store rebuild "
            f"NEW.db --store {where}`"
        )
    if name.startswith("SQLITE_IOERR"):
        return OperatorNeededError(
            f"the disk failed under the store {where} ({error}); check disk and space, then run "
            "`tuner resume`"
        )
    return None


def _has_rights(store: Path) -> bool:
    """Return whether this process may write the store's folder, and its file if there is one."""
    may_make = os.access(store.parent, os.W_OK | os.X_OK)
    return may_make and (not store.exists() or os.access(store, os.R_OK | os.W_OK))


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
