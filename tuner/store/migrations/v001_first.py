"""Schema 1: studies, trials, their raw records and events. No store is older."""

revision = "1"
down_revision = None


def upgrade() -> None:
    """Do nothing: every store has these tables."""
