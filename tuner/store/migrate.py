"""Schema migration: bring the tables of an older store up, refuse those of a newer one."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, insert, select, text, update

from tuner.errors import PreflightError, UsageError
from tuner.host.process import whole_number
from tuner.store import address
from tuner.store.faults import readable
from tuner.store.schema import METADATA, SCHEMA_VERSION, VERSIONS

_REVISIONS = Path(__file__).with_name("migrations")
# PostgreSQL's advisory lock, so that two starts do not create the same tables
CREATION_LOCK = 0x74756E6572


def require_schema(engine: Engine, shown: str, *, create: bool) -> None:
    """Migrate the tuner's tables to the present version; `create` makes them if missing.

    Raises `UsageError` if there are none and `create` is false, `PreflightError` for tables of a
    newer tuner.
    """
    with engine.connect() as connection:
        version = _stored_version(connection)
    if version is None and not create:
        raise UsageError(address.missing(shown))
    if version != SCHEMA_VERSION:
        _require_no_newer(version, shown)
        _bring_up(engine, shown)


def _require_no_newer(version: int | None, shown: str) -> None:
    if version is not None and version > SCHEMA_VERSION:
        raise PreflightError(
            f"the store {shown} has schema {version}, this tuner reads {SCHEMA_VERSION}; "
            "upgrade tuner or name another store with --store"
        )


def _stored_version(connection: Connection) -> int | None:
    if not connection.dialect.has_table(connection, VERSIONS.name):
        return None
    version = connection.scalar(select(VERSIONS.c.version))
    with readable("the table tuner_schema"):
        if version is not None and whole_number(version) < 1:
            raise ValueError(f"version {version}")
    return version


def _bring_up(engine: Engine, shown: str) -> None:
    """Create the tables or migrate them, and set their version, in one transaction."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": CREATION_LOCK})
        version = _stored_version(connection)  # another process may have been first
        _require_no_newer(version, shown)
        if version is None:
            METADATA.create_all(connection)
            connection.execute(insert(VERSIONS).values(version=SCHEMA_VERSION))
        else:
            _upgrade(connection, version)
            connection.execute(update(VERSIONS).values(version=SCHEMA_VERSION))
        connection.commit()


def _upgrade(connection: Connection, version: int) -> None:
    """Run the revisions after `version`, oldest first; see `tuner.store.migrations`."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(_REVISIONS), version_locations=[str(_REVISIONS)])
    missing = list(scripts.iterate_revisions(str(SCHEMA_VERSION), str(version)))
    with Operations.context(MigrationContext.configure(connection)):
        for revision in reversed(missing):
            revision.module.upgrade()
