"""Schema 3: comparison points, which other tools measured."""

import sqlalchemy as sa

from tuner.store.migrations import create_table
from tuner.store.schema import UtcDateTime

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Add their table."""
    create_table(
        "tuner_comparisons",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "study_id",
            sa.Integer,
            sa.ForeignKey("tuner_studies.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("imported_at", UtcDateTime, nullable=False),
        sa.Column("request_rate", sa.Double),
        sa.Column("concurrency", sa.Integer),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.UniqueConstraint("study_id", "sha256"),
    )
