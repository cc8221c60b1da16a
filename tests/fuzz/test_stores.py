"""Stores that are damaged, or made by somebody hostile: one sentence from every command."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers.hostile import cases, one_sentence_at_most
from helpers.records import IDENTITY
from helpers.stored_runs import small_run
from helpers.stored_study import add_night, repeat
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, select

import tuner
from tuner.api.studies import comparison_points
from tuner.report.exports.deployment import deployment
from tuner.report.exports.export import EXPORTS, load_export
from tuner.report.html.page import page
from tuner.store import ComparisonPoint, Store
from tuner.store.inputs.study_files import StudyFile, rows_of
from tuner.store.raw import encode
from tuner.store.schema import RAW_RUNS, STUDY_FILES, TRIALS, add_row
from tuner.store.upkeep.checks import check_file

TABLES = {
    "tuner_studies": "name",
    "tuner_trials": "number",
    "tuner_repeats": "number",
    "tuner_events": "id",
    "tuner_comparisons": "id",
    "tuner_study_files": "id",
    "tuner_raw_runs": "trial_id",
    "tuner_schema": "version",
}
POINT = ComparisonPoint(
    "vllm bench serve", "r.json", "c" * 64, "m", datetime(2026, 3, 2, tzinfo=UTC), None, 32, 100,
    None, 61.5, {"p99_tpot_ms": 31.25},
)  # fmt: skip
DEEP = "[" * 50_000
ODD: list[object] = [
    None, "", "x", 0, -1, 1.5, 2**62, float("inf"), float("-inf"), 1e308, "\ud7ff\0", b"\xff\xfe",
    "null", "[]", "{}", "[null]", '{"a": null}', "{\"flags\": 1}", "NaN", "Infinity", "9" * 400,
    "9" * 5000, DEEP, DEEP.replace("[", '{"a":'), "2026-13-45", "0001-01-01 00:00:00.000000",
    "9999-12-31 23:59:59.999999", "measured", "failed", "running", "emulated", "\x1b]0;x\x07[/x]",
    '{"p99_tpot_ms": "x"}', '{"p99_tpot_ms": 0.0}', '{"energy_per_output_token_j": -1.0}',
    '{"energy_per_output_token_j": 0.0, "p99_tpot_ms": 1e308}', '["p99_tpot_ms<=x"]', '["x<=1"]',
    '{"flags": {"a": NaN}, "environment": {}, "device": {}, "load": {}}',
    '{"flags": {}, "environment": {}, "device": {"power_limit_w": "x"}, "load": {}}',
    '{"flags": {}, "environment": {}, "device": {}, "load": {"request_rate": true}}',
    '{"flags": {"tensor_parallel_size": "x"}, "environment": {}, "device": {}, "load": {}}',
    '{"fixed": 1}', '{"capacity": {"request_rate": "x"}}', '{"request_rate": "x"}',
]  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "tuner.db"
    with Store.open(path, create=True) as store:
        add_night(store, replace(IDENTITY, name="night"))
        repeat(store, 0, 0.41, 30.5)
        repeat(store, 1, 0.31, 45.5)
        store.comparisons.add("night", POINT)
        with store.session() as session:
            for file in rows_of(1, [StudyFile("workload", "w.yaml", b"name: w")]):
                add_row(session, STUDY_FILES, file)
            session.execute(delete(RAW_RUNS))
            for trial_id in session.scalars(select(TRIALS.c.id)).all():
                add_row(session, RAW_RUNS, {"trial_id": trial_id, "encoded": encode(small_run())})
    return path


def spoil(path: Path, seed: int) -> None:
    """Change some cells as SQL lets anybody, or some bytes of the file."""
    chance = random.Random(seed)
    if chance.random() < 0.2:
        content = bytearray(path.read_bytes())
        for _ in range(chance.randint(1, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content[: chance.choice([None, None, chance.randrange(len(content))])])
        return
    with closing(sqlite3.connect(path)) as connection:
        for _ in range(chance.randint(1, 3)):
            table, key = chance.choice(list(TABLES.items()))
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            column, value = chance.choice(columns), chance.choice(ODD)
            with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):  # a constraint
                connection.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {key} IN "
                    f"(SELECT {key} FROM {table} ORDER BY random() LIMIT ?)",
                    (value, chance.choice([1, 1, 100])),
                )
        connection.commit()


def read_list(path: str) -> None:
    with Store.open(path, create=False) as store:
        for summary in store.studies():
            store.events(summary.identity.name)


def read_trials(path: str) -> None:
    study = tuner.load_study("night", path)
    _ = (study.to_pandas(), study.repeats_to_pandas(), study.spec)


def recommend(path: str) -> None:
    found = tuner.load_study("night", path).recommendation
    for name in EXPORTS:
        load_export(name)(deployment(found))


def report(path: str) -> None:
    page(tuner.load_study("night", path).report_data())


def check(path: str) -> None:
    check_file(Path(path))


def read_beside(path: str) -> None:
    comparison_points("night", path)
    with Store.open(path, create=False) as store:
        store.files.of("night")
        for number in store.states("night"):
            store.raw_run("night", number)


READERS: list[Callable[[str], None]] = [
    *(read_list, read_trials, recommend, report, check, read_beside)
]


@cases(2.0)
@given(seed=st.integers(0, 2**32), reader=st.sampled_from(READERS))
def test_a_spoilt_store(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, reader: Callable[[str], None]
) -> None:
    path = sound.with_name("spoilt.db")
    shutil.copy(sound, path)
    spoil(path, seed)
    with one_sentence_at_most():
        reader(str(path))


def test_what_is_odd_is_json_or_none() -> None:
    """At least a few of the odd cells get past the JSON reader to the code behind it."""
    read = 0
    for cell in ODD:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            json.loads(cell)  # type: ignore[arg-type]
            read += 1
    assert read > 10
