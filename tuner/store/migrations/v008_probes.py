"""Schema 8: the load of a probe, which is a repeat at another load than the study's."""

import sqlalchemy as sa

from tuner.store.migrations import add_column

revision = "8"
down_revision = "7"


def upgrade() -> None:
    """Add a column of repeats."""
    add_column("tuner_repeats", sa.Column("load", sa.JSON))
