"""Comparison points come back as they were, and an older store gets room for them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.store import ComparisonPoint, Store

POINT = ComparisonPoint(
    tool="vllm bench serve",
    file_name="openai-infqps.json",
    sha256="c" * 64,
    model="meta-llama/Llama-3.1-8B",
    imported_at=datetime(2026, 3, 2, 9, tzinfo=UTC),
    request_rate=None,
    concurrency=32,
    completed=100,
    failed=None,
    duration_s=61.5,
    metrics={"p99_tpot_ms": 31.25, "output_throughput_tok_s": 1.0 / 3.0},
)


def test_a_point_comes_back_as_it_was(store: Store) -> None:
    store.comparisons.add("night", POINT)
    other = replace(POINT, sha256="d" * 64, request_rate=4.0, concurrency=None, failed=2)
    store.comparisons.add("night", other)
    assert store.comparisons.of("night") == [POINT, other]
    assert store.trials("night") == []


def test_the_same_file_again_replaces_the_point(store: Store) -> None:
    store.comparisons.add("night", POINT)
    again = replace(POINT, file_name="moved.json")
    store.comparisons.add("night", again)
    assert store.comparisons.of("night") == [again]


def test_no_study_no_point(store: Store) -> None:
    with pytest.raises(UsageError, match="unknown study 'day'"):
        store.comparisons.add("day", POINT)


def test_a_store_of_version_2_gets_the_table(store: Store, path: Path) -> None:
    store.close()
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("DROP TABLE tuner_comparisons")
        old.execute("UPDATE tuner_schema SET version = 2")
    with Store.open(path, create=False) as newer:
        assert newer.comparisons.of("night") == []
        newer.comparisons.add("night", POINT)
    with Store.open(path, create=False) as again:
        assert again.comparisons.of("night") == [POINT]
