"""Schema 2: repeats, how long trials took, and when a study was finished."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from tuner.store.migrations import add_column, create_table
from tuner.store.schema import UtcDateTime

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add two tables and three columns."""
    add_column("tuner_studies", sa.Column("finished_at", UtcDateTime))
    add_column("tuner_trials", sa.Column("elapsed_s", sa.Double))
    add_column("tuner_trials", sa.Column("launch_s", sa.Double))
    create_table(
        "tuner_repeats",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "study_id",
            sa.Integer,
            sa.ForeignKey("tuner_studies.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("trial", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("answers", sa.JSON),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime),
        sa.Column("owner_pid", sa.BigInteger, nullable=False),
        sa.Column("owner_boot_id", sa.Text, nullable=False),
        sa.Column("owner_host", sa.Text, nullable=False),
        sa.Column("owner_run_tag", sa.Text, nullable=False),
        sa.Column("metrics", sa.JSON),
        sa.Column("window_start_s", sa.Double),
        sa.Column("window_end_s", sa.Double),
        sa.Column("energy_source", sa.String(16)),
        sa.Column("latency_source", sa.String(16)),
        sa.Column("failure_kind", sa.String(16)),
        sa.Column("failure_reason", sa.Text),
        sa.Column("failure_log_path", sa.Text),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.Column("elapsed_s", sa.Double),
        sa.Column("launch_s", sa.Double),
        sa.UniqueConstraint("study_id", "number"),
    )
    create_table(
        "tuner_repeat_raw_runs",
        sa.Column(
            "repeat_id",
            sa.Integer,
            sa.ForeignKey("tuner_repeats.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("encoded", sa.LargeBinary, nullable=False),
    )
    _set_finished()


def _set_finished() -> None:
    """Mark studies with a spent budget as finished: schema 1 stored nothing else."""
    studies = sa.table(
        "tuner_studies",
        sa.column("id", sa.Integer),
        sa.column("budget_trials", sa.Integer),
        sa.column("budget_s", sa.Double),
        sa.column("spent_s", sa.Double),
        sa.column("finished_at", UtcDateTime),
    )
    trials = sa.table("tuner_trials", sa.column("study_id"), sa.column("state", sa.String))
    ended = (
        sa.select(sa.func.count())
        .select_from(trials)
        .where(trials.c.study_id == studies.c.id, trials.c.state != "running")
        .scalar_subquery()
    )
    spent = sa.or_(
        studies.c.budget_trials <= ended,
        studies.c.budget_s <= studies.c.spent_s,
    )
    op.execute(sa.update(studies).where(spent).values(finished_at=datetime.now(UTC)))
