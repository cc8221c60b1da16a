"""Study names for shell completion, read with sqlite3 alone so that it is fast."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

_BUSY_S = 0.2  # the user waits after pressing Tab
_SQLITE = "sqlite:///"


def study_names(store: str) -> list[str]:
    """Return the names of a SQLite store's studies, newest first; empty if it cannot be read.

    The file is only read. A PostgreSQL server is not asked: that may take too long.
    """
    name = store.removeprefix(_SQLITE)
    path = Path(name).expanduser()
    if "://" in name or not path.is_file():
        return []
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_S)) as connection:
            rows = connection.execute("SELECT name FROM tuner_studies ORDER BY id DESC")
            return [str(name) for (name,) in rows]
    except sqlite3.Error:
        return []
