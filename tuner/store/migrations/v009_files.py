"""Schema 9: the files that a study was started with, and a note on it."""

import sqlalchemy as sa

from tuner.store.migrations import add_column, create_table

revision = "9"
down_revision = "8"


def upgrade() -> None:
    """Add the files' table and a column of studies."""
    create_table(
        "tuner_study_files",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "study_id",
            sa.Integer,
            sa.ForeignKey("tuner_studies.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("compressed", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("study_id", "role"),
    )
    add_column("tuner_studies", sa.Column("note", sa.Text))
