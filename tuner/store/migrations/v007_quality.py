"""Schema 7: which questions a repeat's configuration answered right."""

import sqlalchemy as sa

from tuner.store.migrations import add_column

revision = "7"
down_revision = "6"


def upgrade() -> None:
    """Add a column of repeats."""
    add_column("tuner_repeats", sa.Column("grades", sa.JSON))
