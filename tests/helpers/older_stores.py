"""Stores of older schemas, and how a store differs from the declared tables."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from tuner.store.schema import METADATA, SCHEMA_VERSION

# what each version added to the one before; a new version gets its lines
ADDED_TABLES = {
    2: ["tuner_repeat_raw_runs", "tuner_repeats"],
    3: ["tuner_comparisons"],
    9: ["tuner_study_files"],
}
ADDED_COLUMNS = {
    2: {"tuner_studies": ["finished_at"], "tuner_trials": ["elapsed_s", "launch_s"]},
    4: {"tuner_studies": ["gpu_uuids", "model_revision"]},
    5: {"tuner_repeats": ["traffic"]},
    6: {"tuner_comparisons": ["arrivals", "server"]},
    7: {"tuner_repeats": ["grades"]},
    8: {"tuner_repeats": ["load"]},
    9: {"tuner_studies": ["note"]},
    10: {"tuner_repeats": ["owner_card"], "tuner_trials": ["owner_card"]},
    11: {"tuner_repeats": ["pictures"]},
}


def take_back(engine: Engine, version: int) -> None:
    """Turn a store of the present schema into one of an older version."""
    with engine.begin() as connection:
        for added in range(SCHEMA_VERSION, version, -1):
            for table in ADDED_TABLES.get(added, []):
                connection.execute(text(f"DROP TABLE {table}"))
            for table, columns in ADDED_COLUMNS.get(added, {}).items():
                for column in columns:
                    connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(text("UPDATE tuner_schema SET version = :v"), {"v": version})


def differences(engine: Engine) -> list[object]:
    """Return how the tables differ from the declared ones, nullability and types included."""
    with engine.connect() as connection:
        ours = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_name": lambda name, kind, _: kind != "table" or name in METADATA.tables,
            },
        )
        return compare_metadata(ours, METADATA)
