"""Schema 6: which server another tool measured, and arrivals that are no constant rate."""

import sqlalchemy as sa

from tuner.store.migrations import add_column

revision = "6"
down_revision = "5"


def upgrade() -> None:
    """Add two columns of comparisons."""
    add_column("tuner_comparisons", sa.Column("server", sa.Text))
    add_column("tuner_comparisons", sa.Column("arrivals", sa.Text))
