"""Store address: a path or URL, its preflight checks, and its SQLAlchemy engine."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from sqlalchemy import URL, Engine, NullPool, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from tuner.errors import PreflightError, UsageError
from tuner.host.files.private import open_private, private_folder
from tuner.host.files.trusted import require_trusted
from tuner.host.redaction import redacted
from tuner.store.faults import corrupt, sqlite_fault
from tuner.store.upkeep.file_systems import require_local

_MAGIC = b"SQLite format 3\0"
# libpq's: a server that is cut off, and so silent, is noticed within two minutes
_CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 120_000,  # ms
}
_POOL = "tuner"
_LONGEST_NAME = 230  # bytes of a store's file; those beside it have names up to 18 bytes longer
# Above it, the check leaves out raw records: each has a checksum, and is checked when it is read.
_WHOLE_CHECK_BYTES = 16 * 2**20
_RAW_TABLE = "tuner_raw_runs"


def parse_address(address: str | Path) -> URL:
    """Return the URL that a path or a URL means.

    Raises `UsageError` for anything but a SQLite file or a PostgreSQL URL.
    """
    text = str(address)
    if isinstance(address, Path) or "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        raise UsageError(_expected(text)) from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if "@" in (url.host or ""):
        raise UsageError("--store: write an @ in a user's name or password as %40")
    try:
        (url.host or "").encode("idna")
    except UnicodeError:
        raise UsageError(f"'{shown(url)}' names a host that cannot exist; check it") from None
    on_disk = url.drivername in ("sqlite", "sqlite+pysqlite") and url.database not in (
        None,
        "",
        ":memory:",
    )
    if not (on_disk or url.drivername == "postgresql+psycopg"):
        raise UsageError(_expected(url.render_as_string(hide_password=True)))
    return url


def file_of(url: URL) -> Path | None:
    """Return the SQLite file, or None for a server."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def existing_file(url: str | Path) -> Path | None:
    """Return the SQLite file at a path or URL, None for a server.

    Raises `UsageError` if there is none, `PreflightError` if it cannot be looked at.
    """
    path = file_of(parse_address(url))
    try:
        if path is not None and not path.is_file():
            raise UsageError(missing(str(path)))
    except OSError as error:
        assert path is not None
        raise unusable(path, error) from None
    return path


def shown(url: URL) -> str:
    """Return the store's address for messages, without its password."""
    path = file_of(url)
    return str(path) if path else _without_password(url.render_as_string(hide_password=True))


def shown_address(address: str | Path) -> str:
    """Return what the user wrote as an address, without its password."""
    text = str(address)
    return _without_password(text) if "://" in text else text


def _without_password(text: str) -> str:
    """Hide what may be a password: also one with an unescaped @ or /, and one in the query."""
    scheme, mark, rest = text.partition("://")
    before, at, after = rest.rpartition("@")
    if at and ":" in before:
        user = before.partition(":")[0]
        rest = f"{user}:***@{after}"
    return redacted(f"{scheme}{mark}{rest}")


def check_file(path: Path, *, create: bool) -> None:
    """Check, without changing it, that `path` is or can become a sound SQLite file.

    With `create` it makes the parent folder. Raises `UsageError` if the file is missing and
    `create` is false, or if its name is too long, `PreflightError` if it cannot be used,
    `OperatorNeededError` if it is damaged.
    """
    try:
        found = _status(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise PreflightError(
                f"the store '{path}' is a folder; name a file with --store, e.g. "
                f"{path / 'tuner.db'}"
            )
        size = 0 if found is None else found.st_size
        if not create and not size:
            raise UsageError(missing(str(path)))
        if create:
            if len(path.name.encode()) > _LONGEST_NAME:
                raise UsageError(
                    f"the store's name '{path.name}' is longer than {_LONGEST_NAME} bytes, and its "
                    "locks and backups have longer ones; shorten it"
                )
            require_local(path)
            private_folder(path.parent)
            require_trusted(path)
        if size:
            _check_content(path)
    except OSError as error:
        raise unusable(path, error) from None
    if create:
        _check_writable(path)
        if not path.exists():
            os.close(open_private(path, os.O_RDWR))  # SQLite would make it by the umask


def _status(path: Path) -> os.stat_result | None:
    """Return a file's status, None if there is none. `Path.exists` hides errors since 3.14."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def unusable(path: Path, error: OSError) -> PreflightError:
    """Return the error for a store's file that cannot be looked at."""
    return PreflightError(
        f"cannot use the store '{path}' ({error.strerror}); fix that or name another with --store"
    )


def missing(where: str) -> str:
    """Return the message for a missing store."""
    return f"no store at {where}; start one with `tuner run`, or name it with --store"


def database_engine(url: URL, *, busy_timeout_s: float) -> Engine:
    """Return an engine for the tuner's tables."""
    options = engine_options(url, busy_timeout_s=busy_timeout_s)
    try:
        return create_engine(url, json_deserializer=_from_json, **options)
    except ModuleNotFoundError as error:
        raise PreflightError(
            f"the store {shown(url)} needs the package {error.name}; run "
            "`pip install 'psycopg[binary]'`"
        ) from None


def _from_json(text: str) -> Any:
    """Return what a column of JSON says; a study of 500 trials has 1,500 of them."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # it is stricter than Python, as in NaN
        return json.loads(text)


def engine_options(url: URL, *, busy_timeout_s: float) -> dict[str, Any]:
    """Return the arguments of `create_engine`, for the tuner's tables and Optuna's."""
    if file_of(url) is None:
        # it shows the traceback of each connection that cannot be rolled back as it was cut
        logging.getLogger(f"sqlalchemy.pool.impl.QueuePool.{_POOL}").setLevel(logging.CRITICAL)
        return {
            "pool_pre_ping": True,
            "pool_logging_name": _POOL,
            "connect_args": dict(_CONNECTION),
        }
    return {
        "connect_args": {"timeout": busy_timeout_s, "factory": _DurableConnection},
        "poolclass": NullPool,  # opening a file is cheap, and nothing stays open
    }


class _DurableConnection(sqlite3.Connection):
    """A connection whose commits survive a power cut, and which enforces foreign keys.

    A transaction takes the write lock at once: one that starts as a reader can fail without
    waiting when it turns to writing. EXTRA is FULL plus a sync of the folder after the rollback
    journal is gone, without which a power cut may bring the journal, and the old state, back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.isolation_level = "IMMEDIATE"
        self.execute("PRAGMA journal_mode=DELETE").close()
        self.execute("PRAGMA synchronous=EXTRA").close()
        self.execute("PRAGMA foreign_keys=ON").close()


def _expected(text: str) -> str:
    return f"'{shown_address(text)}' is no store; write the path of a SQLite file or postgresql://user@host/name"


def _check_content(path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise PreflightError(
            f"'{path}' is not a SQLite database and was left untouched; name another with --store"
        )
    problem = first_damage(path)
    if problem is not None:
        raise corrupt(str(path), problem)


def first_damage(path: Path) -> str | None:
    """Return the first fault of a SQLite file, or None.

    Opening it rolls back a half-written transaction. Raises the error tree of `tuner.errors` for a
    file that cannot be checked.
    """
    address = f"file:{quote(str(path.absolute()))}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=60.0)) as connection:
            if path.stat().st_size <= _WHOLE_CHECK_BYTES:
                checks = ["PRAGMA quick_check(1)"]
            else:
                names = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
                checks = [
                    f'PRAGMA quick_check("{name.replace(chr(34), chr(34) * 2)}")'
                    for (name,) in names.fetchall()
                    if name != _RAW_TABLE
                ]
            for check in checks:
                found = connection.execute(check).fetchone()
                if found != ("ok",):
                    return " ".join(str(found[0]).split()) if found else "no answer"
    except sqlite3.Error as error:
        fault = sqlite_fault(error, str(path))
        if fault is None:
            return str(error)
        raise fault from error
    except UnicodeDecodeError:  # SQLite quotes a damaged name
        return "a name in it is no text"
    return None


def _check_writable(path: Path) -> None:
    target = path if path.exists() else path.parent
    for needed in {target, path.parent}:
        if not os.access(needed, os.W_OK):
            raise PreflightError(
                f"'{needed}' is not writable; make it so or name another store with --store"
            )
