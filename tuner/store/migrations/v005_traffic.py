"""Schema 5: the stretch of traffic that a repeat was measured on."""

import sqlalchemy as sa

from tuner.store.migrations import add_column

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """Add a column of repeats."""
    add_column("tuner_repeats", sa.Column("traffic", sa.Integer))
