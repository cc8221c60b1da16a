"""Parts of a trace: the search and the confirmation share no row, and none is lost."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.load.traces.part import search_part, unseen_part
from tuner.load.traces.trace_file import TraceRow, write_trace


@given(st.integers(4, 1000), st.integers(0, 50))
def test_the_confirmation_sees_no_row_of_the_search(rows: int, number: int) -> None:
    search, unseen = search_part(rows), unseen_part(rows, number)
    assert search.first + search.rows == unseen.first
    assert unseen.first + unseen.rows == rows
    assert 0 <= unseen.offset < unseen.rows


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl.gz"
    rows = (TraceRow(float(i * i), 10 + i, prompt_tokens=50) for i in range(41))
    with path.open("wb") as file:
        write_trace(file, rows)
    return path


def test_every_number_begins_elsewhere_and_reads_every_row_once(trace: Path) -> None:
    begins = set()
    for number in range(6):
        rows = list(unseen_part(41, number).read(trace))
        assert sorted(row.output_tokens for row in rows) == [10 + i for i in range(20, 41)]
        times_s = [row.arrival_s for row in rows]
        assert all(a is not None and b is not None and a < b for a, b in pairwise(times_s))
        begins.add(rows[0].output_tokens)
    assert len(begins) == 6


def test_the_search_reads_the_first_half_as_it_is(trace: Path) -> None:
    rows = list(search_part(41).read(trace))
    assert [row.arrival_s for row in rows] == [float(i * i) for i in range(20)]


def test_a_trace_of_three_rows_is_not_split() -> None:
    assert search_part(3).rows == unseen_part(3, 0).rows == 3
