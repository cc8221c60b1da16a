"""Schema 11: pictures of a repeat beside the baseline's."""

import sqlalchemy as sa

from tuner.store.migrations import add_column

revision = "11"
down_revision = "10"


def upgrade() -> None:
    """Add a column of repeats."""
    add_column("tuner_repeats", sa.Column("pictures", sa.JSON))
