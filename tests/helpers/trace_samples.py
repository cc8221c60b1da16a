"""A small file of each format of traces, and a row that is wrong in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.load.importers.reading import Reading
from tuner.load.importers.registry import TraceFormat, importer_named
from tuner.load.traces.trace_file import TraceRow

Write = Callable[[str | bytes], Path]


@dataclass(frozen=True)
class Sample:
    """How a file of a format is put together; rows and items count from 1.

    `bad_row` holds no work that could be told. `first_row_at` is the line or item of the first row.
    """

    row: Callable[[int], str]
    bad_row: str
    header: str = ""
    between: str = "\n"
    footer: str = ""
    place: str = "line"
    first_row_at: int = 1

    def content(self, n_rows: int, *more: str) -> str:
        """Return a file of good rows, and these after them."""
        rows = [*map(self.row, range(n_rows)), *more]
        return self.header + self.between.join(rows) + self.footer


def _conversation(number: int) -> str:
    said = [("human", f"hello there {number}"), ("gpt", "hello, and how are you?")]
    turns = [{"from": who, "value": what} for who, what in said]
    return json.dumps({"id": str(number), "conversations": turns})


def _mooncake(number: int) -> str:
    blocks = {"input_length": 600 + number % 400, "output_length": 20, "hash_ids": [0, number]}
    return json.dumps({"timestamp": 100 * number, **blocks})


SAMPLES = {
    TraceFormat.AZURE: Sample(
        lambda n: f"2023-11-16 18:{n // 60 % 60:02}:{n % 60:02}.9799600,{100 + n % 900},10",
        bad_row="2023-11-16 23:59:59,100,-1",
        header="TIMESTAMP,ContextTokens,GeneratedTokens\n",
        first_row_at=2,
    ),
    TraceFormat.BURSTGPT: Sample(
        lambda n: f"{5 + n},ChatGPT,{400 + n % 100},18,{418 + n % 100},Conversation log",
        bad_row="999999,GPT-4,300,0,300,API log",
        header="Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n",
        first_row_at=2,
    ),
    TraceFormat.JSONL: Sample(
        lambda n: json.dumps({"prompt": f"one two {n}", "output_tokens": 3}),
        bad_row='{"prompt": "one two"}',
    ),
    TraceFormat.MOONCAKE: Sample(_mooncake, bad_row='{"timestamp": 999999999}'),
    TraceFormat.SHAREGPT: Sample(
        _conversation,
        bad_row='{"id": "x"}',
        header="[",
        between=",\n",
        footer="]",
        place="item",
    ),
}


def rows(form: str, path: Path) -> list[TraceRow]:
    return list(importer_named(form).rows(path, Reading()))


def refused(form: str, path: Path) -> str:
    """Return the one sentence that says why a file is refused."""
    with pytest.raises(UsageError) as caught:
        rows(form, path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message
