"""Migrations of the store: one alembic revision a file, one file a schema version.

To add a column or a table: declare it in `tuner/store/schema.py`, raise `SCHEMA_VERSION` there,
and add `vNNN_WHAT.py` here, whose `revision` is that number, whose `down_revision` is the one
before, and whose `upgrade` calls `add_column` or `create_table` below. A column of an older store
is empty in the rows it holds, so it has to be nullable. A revision that users may have run is
never changed: it writes its tables out, since `schema.py` moves on.

`tuner/store/migrate.py` runs all missing revisions in one transaction, which also sets
`tuner_schema.version`: after a `kill -9` a store has its old version or the new one. There is no
other record of the version; `alembic_version` in the same database is Optuna's.
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import Column, Table, inspect
from sqlalchemy.schema import SchemaItem


def add_column(table: str, column: Column[Any]) -> None:
    """Add a nullable column, unless the table has it: a store put together from parts may."""
    present = {known["name"] for known in inspect(op.get_bind()).get_columns(table)}
    if column.name not in present:
        op.add_column(table, column)


def create_table(name: str, *items: SchemaItem) -> Table:
    """Create a table, unless the store has it."""
    return op.create_table(name, *items, if_not_exists=True)
