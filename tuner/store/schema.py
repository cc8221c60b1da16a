"""Schema: the tuner's tables, prefixed `tuner_` because Optuna owns `studies` and `trials`.

They are tables of SQLAlchemy Core: its ORM would take longer to import than a study to read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    insert,
)
from sqlalchemy.types import TypeEngine

from tuner.host.redaction import redacted

# of the present tables; tuner/store/migrations/ tells what each version added
SCHEMA_VERSION = 11

_Type: TypeAlias = TypeEngine[Any] | type[TypeEngine[Any]]


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


METADATA = MetaData()


def add_row(session: Connection, table: Table, values: dict[str, Any]) -> int:
    """Add a row to a table; return its key."""
    key = session.execute(insert(table).values(values)).inserted_primary_key
    assert key is not None, "a single row has one"
    return int(key[0])


def _key() -> Column[Any]:
    return Column("id", Integer, primary_key=True)


def _given(name: str, kind: _Type) -> Column[Any]:
    """Return a column that every row has."""
    return Column(name, kind, nullable=False)


def _known(name: str, kind: _Type) -> Column[Any]:
    """Return a column that is NULL where its value is not known."""
    return Column(name, kind)


def _json() -> JSON:
    """Return the type of an optional value: without one it is NULL, not JSON's null."""
    return JSON(none_as_null=True)


def _of_study(*, index: bool = False) -> Column[Any]:
    owner = ForeignKey("tuner_studies.id", ondelete="CASCADE")
    return Column("study_id", owner, nullable=False, index=index)


def _outcome() -> tuple[Column[Any], ...]:
    """Return the columns of one evaluation: who ran it, and how it ended once it has."""
    return (
        _given("state", String(16)),
        _given("started_at", UtcDateTime),
        _known("ended_at", UtcDateTime),
        _given("owner_pid", BigInteger),
        _given("owner_boot_id", Text),
        _given("owner_host", Text),
        _given("owner_run_tag", Text),
        _known("owner_card", Text),
        _known("metrics", _json()),
        _known("window_start_s", Double),
        _known("window_end_s", Double),
        _known("energy_source", String(16)),
        _known("latency_source", String(16)),
        _known("failure_kind", String(16)),
        _known("failure_reason", FreeText),
        _known("failure_log_path", FreeText),
        _given("warnings", JSON),
        _known("elapsed_s", Double),
        _known("launch_s", Double),
    )


# one row: the version of this schema
VERSIONS = Table(
    "tuner_schema",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

# the identity of each study
STUDIES = Table(
    "tuner_studies",
    METADATA,
    _key(),
    Column("name", String(512), unique=True, nullable=False),
    _given("created_at", UtcDateTime),
    _given("model", Text),
    _given("workload_name", Text),
    _given("workload_sha256", String(64)),
    _given("space_name", Text),
    _given("space_sha256", String(64)),
    _given("slos", JSON),
    _given("objectives", JSON),
    _given("evaluation", String(32)),
    _given("server_version", Text),
    _given("gpu", Text),
    _known("driver", Text),
    _given("energy_source", String(16)),
    _given("latency_source", String(16)),
    _known("budget_trials", Integer),
    _known("budget_s", Double),
    _given("spent_s", Double),
    _given("spec_json", JSON),
    _known("finished_at", UtcDateTime),
    _known("gpu_uuids", _json()),
    _known("model_revision", Text),
    _known("note", FreeText),
)

# the files that studies were started with, compressed by zlib; see `tuner.store.inputs`
STUDY_FILES = Table(
    "tuner_study_files",
    METADATA,
    _key(),
    _of_study(),
    _given("role", String(32)),
    _given("name", FreeText),
    _given("sha256", String(64)),
    _given("compressed", LargeBinary),
    UniqueConstraint("study_id", "role"),
)

# the trials of the search: a configuration and the result of its evaluation
TRIALS = Table(
    "tuner_trials",
    METADATA,
    _key(),
    _of_study(),
    _given("number", Integer),
    _given("configuration", JSON),
    _given("baseline", Boolean),
    *_outcome(),
    UniqueConstraint("study_id", "number"),
)

# repeats: one more evaluation of a trial's configuration each, on a clean launch
REPEATS = Table(
    "tuner_repeats",
    METADATA,
    _key(),
    _of_study(),
    _given("number", Integer),
    _given("trial", Integer),
    _given("kind", String(16)),
    _known("answers", _json()),
    _known("traffic", Integer),
    _known("grades", _json()),
    _known("pictures", _json()),
    _known("load", _json()),
    *_outcome(),
    UniqueConstraint("study_id", "number"),
)

# the raw records of trials, encoded by `tuner.store.raw`; large, so in their own table
RAW_RUNS = Table(
    "tuner_raw_runs",
    METADATA,
    Column("trial_id", ForeignKey("tuner_trials.id", ondelete="CASCADE"), primary_key=True),
    _given("encoded", LargeBinary),
)

# the raw records of repeats
REPEAT_RAW_RUNS = Table(
    "tuner_repeat_raw_runs",
    METADATA,
    Column("repeat_id", ForeignKey("tuner_repeats.id", ondelete="CASCADE"), primary_key=True),
    _given("encoded", LargeBinary),
)

# the events of studies
EVENTS = Table(
    "tuner_events",
    METADATA,
    _key(),
    _of_study(index=True),
    _given("at", UtcDateTime),
    _given("kind", FreeText),
    _given("message", FreeText),
    _known("trial", Integer),
)

# comparison points: other tools' results for a study's model, not part of the study
COMPARISONS = Table(
    "tuner_comparisons",
    METADATA,
    _key(),
    _of_study(),
    _given("sha256", String(64)),
    _given("tool", Text),
    _given("file_name", FreeText),
    _given("model", FreeText),
    _given("imported_at", UtcDateTime),
    _known("request_rate", Double),
    _known("concurrency", Integer),
    _given("completed", Integer),
    _known("failed", Integer),
    _given("duration_s", Double),
    _given("metrics", JSON),
    _known("server", FreeText),
    _known("arrivals", FreeText),
    UniqueConstraint("study_id", "sha256"),
)
