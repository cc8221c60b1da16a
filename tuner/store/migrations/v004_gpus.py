"""Schema 4: the GPUs' UUIDs, and the revision of the model's files."""

import sqlalchemy as sa

from tuner.store.migrations import add_column

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Add two columns of studies."""
    add_column("tuner_studies", sa.Column("gpu_uuids", sa.JSON))
    add_column("tuner_studies", sa.Column("model_revision", sa.Text))
