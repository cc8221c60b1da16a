"""Schema migration: update the tables of an older store, refuse those of a newer one."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, func, insert, inspect, or_, select, text, update
from sqlalchemy.schema import CreateColumn

from tuner.errors import PreflightError, UsageError
from tuner.store import address
from tuner.store.schema import SCHEMA_VERSION, Base, SchemaRecord, StudyRecord, TrialRecord

_CREATION_LOCK = (
    0x74756E6572  # PostgreSQL advisory lock, so that two starts do not create the same tables
)


def require_schema(engine: Engine, shown: str, *, create: bool) -> None:
    """Migrate the tuner's tables to the present version; `create` makes them if missing.

    Raises `UsageError` if there are none and `create` is false, `PreflightError` for tables of a
    newer tuner.
    """
    version = _version(engine)
    if version is None and not create:
        raise UsageError(address.missing(shown))
    if version is not None and version > SCHEMA_VERSION:
        raise PreflightError(
            f"the store {shown} has schema {version}, this tuner reads {SCHEMA_VERSION}; "
            "upgrade tuner or name another store with --store"
        )
    if version != SCHEMA_VERSION:
        _bring_up(engine)


def _version(engine: Engine) -> int | None:
    with engine.connect() as connection:
        return _stored_version(connection)


def _stored_version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(SchemaRecord.__tablename__):
        return None
    return connection.scalar(select(SchemaRecord.version))


def _bring_up(engine: Engine) -> None:
    """Add missing tables and columns in one transaction; existing ones stay unchanged."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": _CREATION_LOCK})
        version = _stored_version(connection)  # another process may have been first
        _add_columns(connection)
        Base.metadata.create_all(connection)
        if version is None:
            connection.execute(insert(SchemaRecord).values(version=SCHEMA_VERSION))
        else:
            connection.execute(update(SchemaRecord).values(version=SCHEMA_VERSION))
        if version == 1:
            _note_finished(connection)
        connection.commit()


def _add_columns(connection: Connection) -> None:
    """Add the columns that a table lacks; a column added later may always be empty."""
    known = inspect(connection)
    for table in Base.metadata.sorted_tables:
        if not known.has_table(table.name):
            continue
        present = {column["name"] for column in known.get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                line = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {line}")


def _note_finished(connection: Connection) -> None:
    """Mark studies with a spent budget as finished: version 1 stored nothing else."""
    ended = (
        select(func.count(TrialRecord.id))
        .where(TrialRecord.study_id == StudyRecord.id, TrialRecord.state != "running")
        .scalar_subquery()
    )
    spent = or_(
        StudyRecord.budget_trials <= ended,
        StudyRecord.budget_s <= StudyRecord.spent_s,
    )
    connection.execute(update(StudyRecord).where(spent).values(finished_at=datetime.now(UTC)))
