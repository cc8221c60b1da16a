"""Tables fit a narrow terminal in parts, and no word is cut that fits into a line."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from tuner.report.terminal.layout.narrow import Parts, fits, tables_that_fit


def console(width: int) -> Console:
    return Console(width=width, file=io.StringIO(), markup=False)


def shown(text: str, width: int) -> list[str]:
    to = console(width)
    cell = Table.grid()
    cell.add_column(overflow="fold")
    cell.add_row(Parts(text))
    to.print(cell)
    assert isinstance(to.file, io.StringIO)
    return [line.rstrip() for line in to.file.getvalue().splitlines()]


def test_a_long_word_breaks_where_its_parts_meet() -> None:
    assert shown("meta-llama/Llama-3.1-8B-Instruct", 20) == ["meta-llama/Llama-", "3.1-8B-Instruct"]
    assert shown("max_num_seqs=64, max_num_batched_tokens=16384", 24) == [
        "max_num_seqs=64,",
        "max_num_batched_tokens=",
        "16384",
    ]
    assert shown("of max_num_batched_tokens=16384,", 30) == ["of", "max_num_batched_tokens=16384,"]


@given(
    words=st.lists(st.text("abc/_-=,0", min_size=1, max_size=40), min_size=1, max_size=6),
    width=st.integers(8, 60),
)
def test_nothing_is_lost_and_what_fits_is_not_cut(words: list[str], width: int) -> None:
    lines = shown(" ".join(words), width)
    assert "".join(lines).replace(" ", "") == "".join(words)
    assert all(len(line) <= width for line in lines)
    for word in words:
        if len(word) <= width:
            assert any(word in line.split(" ") for line in lines), (word, lines)


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_every_column_is_in_one_table_that_fits(width: int) -> None:
    names = [f"column {n}" for n in range(9)]

    def table(columns: Sequence[str]) -> Table:
        made = Table("trial", *columns)
        made.add_row("1", *("12,345.6" for _ in columns))
        return made

    tables = tables_that_fit(console(width), names, table)
    assert [c.header for t in tables for c in t.columns if c.header != "trial"] == names
    assert all(fits(console(width), one) for one in tables)
    assert (len(tables) == 1) is (width == 120)
