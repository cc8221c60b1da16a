"""Store probe: test whether a store can be written now, without waiting or changing it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Engine, text

from tuner.errors import OperatorNeededError
from tuner.store.faults import database_faults, sqlite_fault
from tuner.store.upkeep.file_systems import require_room

_WAIT_S = 0.05


def probe_file(path: Path) -> None:
    """Raise the fault that a write to a SQLite file would hit: no space, a lock, or another."""
    try:
        require_room(path)
    except OSError as error:
        raise OperatorNeededError(
            f"the folder of the store {path} cannot be read ({error.strerror}); fix that, then "
            "run `tuner resume`"
        ) from error
    address = f"file:{quote(str(path.absolute()))}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_S)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        fault = sqlite_fault(error, str(path))
        if fault is None:
            raise
        raise fault from error


def probe_server(engine: Engine, shown: str) -> None:
    """Raise the fault that a statement would hit; reconnect if the connection was dropped."""
    with database_faults(shown), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
