"""Whether a store could be written to right now, asked without waiting or changing anything."""

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
    """Raise what a write to a SQLite file would meet: no room, a lock, or what else is wrong."""
    try:
        require_room(path)
    except OSError as error:
        raise OperatorNeededError(
            f"the folder of the store {path} cannot be read ({error.strerror}); mend that, then "
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
    """Raise what a statement would meet; a connection that was dropped meanwhile is replaced."""
    with database_faults(shown), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
