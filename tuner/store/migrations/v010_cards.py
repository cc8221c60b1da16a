"""Schema 10: the card that a trial or a repeat was measured on, in a study on several."""

import sqlalchemy as sa

from tuner.store.migrations import add_column

revision = "10"
down_revision = "9"


def upgrade() -> None:
    """Add a column of trials and one of repeats."""
    add_column("tuner_trials", sa.Column("owner_card", sa.Text))
    add_column("tuner_repeats", sa.Column("owner_card", sa.Text))
