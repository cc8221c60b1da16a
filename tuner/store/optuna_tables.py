"""Optuna's tables in a store: made by one process at a time.

Optuna looks which tables are missing and then makes them, without a lock: of several runs that
start on a new store, some would find them made in between, and end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, inspect, text

from tuner.store.lock.file_lock import tables_lock
from tuner.store.migrate import CREATION_LOCK

_LAST_MADE = "alembic_version"


@contextmanager
def made_alone(engine: Engine, file: Path | None) -> Iterator[None]:
    """Keep others from making Optuna's tables in the `with` block, where they are missing.

    `file` is the SQLite file, None for a server. Raises the faults of the database.
    """
    if _are_there(engine):
        yield
    elif file is not None:
        with tables_lock(file):
            yield
    else:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": CREATION_LOCK})
            yield


def _are_there(engine: Engine) -> bool:
    with engine.connect() as connection:
        if not inspect(connection).has_table(_LAST_MADE):
            return False
        rows: int | None = connection.scalar(text("SELECT count(*) FROM alembic_version"))
        return rows == 1
