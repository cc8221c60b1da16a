"""Schema: the tuner's tables, prefixed `tuner_` because Optuna owns `studies` and `trials`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tuner.host.redaction import redacted

# of the present tables; tuner/store/migrations/ tells what each version added
SCHEMA_VERSION = 11


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite, which has no time zones, keeps it naive in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time, and store the rest in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class FreeText(TypeDecorator[str]):
    """Text from logs and errors, without secrets and without characters that databases refuse."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Remove secrets, NUL and lone surrogates."""
        return value if value is None else storable(value)


def storable(text: str) -> str:
    """Return `text` without secrets; NUL and lone surrogates, which databases refuse, replaced."""
    return (
        redacted(text)
        .encode("utf-16", "surrogatepass")
        .decode("utf-16", "replace")
        .replace("\0", "\ufffd")
    )


class Base(DeclarativeBase):
    """Base class of the tuner's tables."""

    type_annotation_map = {datetime: UtcDateTime, float: Double, dict[str, Any]: JSON}  # noqa: RUF012


class SchemaRecord(Base):
    """One row: the version of this schema."""

    __tablename__ = "tuner_schema"

    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)


class StudyRecord(Base):
    """The identity of a study."""

    __tablename__ = "tuner_studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(512), unique=True)
    created_at: Mapped[datetime]
    model: Mapped[str] = mapped_column(Text)
    workload_name: Mapped[str] = mapped_column(Text)
    workload_sha256: Mapped[str] = mapped_column(String(64))
    space_name: Mapped[str] = mapped_column(Text)
    space_sha256: Mapped[str] = mapped_column(String(64))
    slos: Mapped[list[str]] = mapped_column(JSON)
    objectives: Mapped[list[str]] = mapped_column(JSON)
    evaluation: Mapped[str] = mapped_column(String(32))
    server_version: Mapped[str] = mapped_column(Text)
    gpu: Mapped[str] = mapped_column(Text)
    driver: Mapped[str | None] = mapped_column(Text)
    energy_source: Mapped[str] = mapped_column(String(16))
    latency_source: Mapped[str] = mapped_column(String(16))
    budget_trials: Mapped[int | None]
    budget_s: Mapped[float | None]
    spent_s: Mapped[float]
    spec_json: Mapped[dict[str, Any]]
    finished_at: Mapped[datetime | None]
    gpu_uuids: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    model_revision: Mapped[str | None] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(FreeText)


class StudyFileRecord(Base):
    """A file that a study was started with, compressed by zlib; see `tuner.store.inputs`."""

    __tablename__ = "tuner_study_files"
    __table_args__ = (UniqueConstraint("study_id", "role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("tuner_studies.id", ondelete="CASCADE"))
    role: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(FreeText)
    sha256: Mapped[str] = mapped_column(String(64))
    compressed: Mapped[bytes] = mapped_column(LargeBinary)


class _Outcome:
    """The columns of one evaluation: who ran it, and a measurement or a failure once it ended."""

    state: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    owner_pid: Mapped[int] = mapped_column(BigInteger)
    owner_boot_id: Mapped[str] = mapped_column(Text)
    owner_host: Mapped[str] = mapped_column(Text)
    owner_run_tag: Mapped[str] = mapped_column(Text)
    owner_card: Mapped[str | None] = mapped_column(Text)
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    window_start_s: Mapped[float | None]
    window_end_s: Mapped[float | None]
    energy_source: Mapped[str | None] = mapped_column(String(16))
    latency_source: Mapped[str | None] = mapped_column(String(16))
    failure_kind: Mapped[str | None] = mapped_column(String(16))
    failure_reason: Mapped[str | None] = mapped_column(FreeText)
    failure_log_path: Mapped[str | None] = mapped_column(FreeText)
    warnings: Mapped[list[str]] = mapped_column(JSON)
    elapsed_s: Mapped[float | None]
    launch_s: Mapped[float | None]


class TrialRecord(_Outcome, Base):
    """A trial of the search: a configuration and the result of its evaluation."""

    __tablename__ = "tuner_trials"
    __table_args__ = (UniqueConstraint("study_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("tuner_studies.id", ondelete="CASCADE"))
    number: Mapped[int]
    configuration: Mapped[dict[str, Any]]
    baseline: Mapped[bool]


class RepeatRecord(_Outcome, Base):
    """A repeat: one more evaluation of a trial's configuration, on a clean launch."""

    __tablename__ = "tuner_repeats"
    __table_args__ = (UniqueConstraint("study_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("tuner_studies.id", ondelete="CASCADE"))
    number: Mapped[int]
    trial: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    answers: Mapped[list[list[int]] | None] = mapped_column(JSON(none_as_null=True))
    traffic: Mapped[int | None]
    grades: Mapped[list[bool] | None] = mapped_column(JSON(none_as_null=True))
    pictures: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    load: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class RawRunRecord(Base):
    """The raw records of a trial, encoded by `tuner.store.raw`; large, so in their own table."""

    __tablename__ = "tuner_raw_runs"

    trial_id: Mapped[int] = mapped_column(
        ForeignKey("tuner_trials.id", ondelete="CASCADE"), primary_key=True
    )
    encoded: Mapped[bytes] = mapped_column(LargeBinary)


class RepeatRawRunRecord(Base):
    """The raw records of a repeat."""

    __tablename__ = "tuner_repeat_raw_runs"

    repeat_id: Mapped[int] = mapped_column(
        ForeignKey("tuner_repeats.id", ondelete="CASCADE"), primary_key=True
    )
    encoded: Mapped[bytes] = mapped_column(LargeBinary)


class EventRecord(Base):
    """An event of a study."""

    __tablename__ = "tuner_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(
        ForeignKey("tuner_studies.id", ondelete="CASCADE"), index=True
    )
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(FreeText)
    message: Mapped[str] = mapped_column(FreeText)
    trial: Mapped[int | None]


class ComparisonRecord(Base):
    """A comparison point: another tool's result for a study's model, not part of the study."""

    __tablename__ = "tuner_comparisons"
    __table_args__ = (UniqueConstraint("study_id", "sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("tuner_studies.id", ondelete="CASCADE"))
    sha256: Mapped[str] = mapped_column(String(64))
    tool: Mapped[str] = mapped_column(Text)
    file_name: Mapped[str] = mapped_column(FreeText)
    model: Mapped[str] = mapped_column(FreeText)
    imported_at: Mapped[datetime]
    request_rate: Mapped[float | None]
    concurrency: Mapped[int | None]
    completed: Mapped[int]
    failed: Mapped[int | None]
    duration_s: Mapped[float]
    metrics: Mapped[dict[str, Any]]
    server: Mapped[str | None] = mapped_column(FreeText)
    arrivals: Mapped[str | None] = mapped_column(FreeText)
