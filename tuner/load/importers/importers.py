"""Traces and conversations in other projects' formats, as rows of our own.

Each importer is a stream: a file of any size needs the memory of a row. What is written in a file
is read as data, never evaluated; what it does not hold is an error that names the line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from tuner.errors import UsageError
from tuner.load.text_request import estimated_tokens
from tuner.load.traces.json_array import read_array
from tuner.load.traces.trace_file import (
    MAX_TOKENS,
    BadRowError,
    TraceRow,
    at_line,
    hash_ids,
    json_object,
    messages,
    read_lines,
    shown,
    text,
    time_s,
    tokens,
)
from tuner.records import Message

Importer: TypeAlias = Callable[[Path], Iterator[TraceRow]]

MOONCAKE_BLOCK_TOKENS = 512

_AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOONCAKE_UNIT_S = 1e-3
_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}
_MOST_DIGITS = 20


def azure_rows(path: Path) -> Iterator[TraceRow]:
    """Read an Azure LLM inference trace: CSV of time, prompt and output tokens."""
    lines = read_lines(path)
    number, header = next(lines, (1, ""))
    try:
        columns = _csv_columns(header)
    except BadRowError as error:
        raise at_line(path, number, error) from None
    return _in_time_order(path, _each(path, lines, lambda line: _azure_row(line, columns)))


def mooncake_rows(path: Path) -> Iterator[TraceRow]:
    """Read a Mooncake trace: JSON lines of time in ms, lengths and ids of 512-token blocks."""
    return _in_time_order(path, _each(path, read_lines(path), _mooncake_row))


def sharegpt_rows(path: Path) -> Iterator[TraceRow]:
    """Read ShareGPT conversations: one request, with all before it, for each answer.

    Output lengths are estimated from the answers' text.
    """
    for number, item in read_array(path):
        try:
            yield from _sharegpt_requests(item)
        except BadRowError as error:
            raise at_line(path, number, error) from None


def jsonl_rows(path: Path) -> Iterator[TraceRow]:
    """Read JSON lines of text: `prompt` or `messages`, and `output_tokens` or `max_tokens`."""
    rows = _each(path, read_lines(path), _text_row)
    return (row for _, row in rows)


IMPORTERS: Mapping[str, Importer] = MappingProxyType(
    {
        "azure": azure_rows,
        "mooncake": mooncake_rows,
        "sharegpt": sharegpt_rows,
        "jsonl": jsonl_rows,
    }
)


def _each(
    path: Path, lines: Iterator[tuple[int, str]], read: Callable[[str], TraceRow]
) -> Iterator[tuple[int, TraceRow]]:
    for number, line in lines:
        try:
            yield number, read(line)
        except BadRowError as error:
            raise at_line(path, number, error) from None


def _in_time_order(path: Path, rows: Iterator[tuple[int, TraceRow]]) -> Iterator[TraceRow]:
    """Count time from the first row; raises `UsageError` where it goes back."""
    first_s: float | None = None
    last_s = 0.0
    for number, row in rows:
        assert row.arrival_s is not None
        if first_s is None:
            first_s = last_s = row.arrival_s
        if row.arrival_s < last_s:
            raise at_line(
                path, number, "earlier than the row before; sort the file by its times first"
            )
        last_s = row.arrival_s
        yield replace(row, arrival_s=round(row.arrival_s - first_s, 6))


def _csv_fields(line: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], strict=True))]
    except (csv.Error, StopIteration) as error:
        raise BadRowError(f"not CSV ({error}): {shown(line)}") from None


def _csv_columns(header: str) -> tuple[int, int, int]:
    names = [name.lower() for name in _csv_fields(header)] if header else []
    try:
        time, prompt, output = (names.index(column.lower()) for column in _AZURE_COLUMNS)
    except ValueError:
        raise BadRowError(
            f"expected the columns {', '.join(_AZURE_COLUMNS)}, found {shown(header)}"
        ) from None
    return time, prompt, output


def _azure_row(line: str, columns: tuple[int, int, int]) -> TraceRow:
    fields = _csv_fields(line)
    if len(fields) <= max(columns):
        raise BadRowError(f"expected {max(columns) + 1} columns or more, found {shown(line)}")
    time, prompt, output = (fields[column] for column in columns)
    return TraceRow(
        arrival_s=_moment_s(time),
        prompt_tokens=_csv_tokens(prompt, "ContextTokens"),
        output_tokens=_csv_tokens(output, "GeneratedTokens"),
    )


def _csv_tokens(field: str, what: str) -> int:
    if not field.isascii() or not field.isdigit() or len(field) > _MOST_DIGITS:
        raise BadRowError(
            f"{what} must be a whole number from 1 to {MAX_TOKENS}, found {shown(field)}"
        )
    return tokens(int(field), what)


def _moment_s(field: str) -> float:
    try:
        moment = datetime.fromisoformat(field)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadRowError(
            f"TIMESTAMP must look like 2023-11-16 18:15:46.68, found {shown(field)}"
        ) from None


def _mooncake_row(line: str) -> TraceRow:
    fields = json_object(line)
    row = TraceRow(
        arrival_s=time_s(fields.get("timestamp"), "timestamp", _MOONCAKE_UNIT_S),
        prompt_tokens=tokens(fields.get("input_length"), "input_length"),
        output_tokens=tokens(fields.get("output_length"), "output_length"),
        hash_ids=hash_ids(fields.get("hash_ids", []), "hash_ids"),
    )
    assert row.prompt_tokens is not None
    if (len(row.hash_ids) - 1) * MOONCAKE_BLOCK_TOKENS >= row.prompt_tokens:
        raise BadRowError(
            f"{len(row.hash_ids)} hash_ids of {MOONCAKE_BLOCK_TOKENS} tokens are more than "
            f"input_length {row.prompt_tokens}"
        )
    return row


def _sharegpt_requests(item: object) -> Iterator[TraceRow]:
    spoken = item.get("conversations") if isinstance(item, dict) else None
    if not isinstance(spoken, list):
        raise BadRowError(f"expected an object with a list 'conversations', found {shown(item)}")
    said: list[Message] = []
    for one in spoken:
        role, content = _sharegpt_turn(one)
        # An answer to nothing, as conversations cut out of longer ones begin with, asks nothing.
        if role == "assistant" and said and said[-1].role == "user":
            length = min(estimated_tokens(content), MAX_TOKENS)
            yield TraceRow(None, length, prompt=tuple(said))
        if content:
            said.append(Message(role, content))


def _sharegpt_turn(one: object) -> tuple[str, str]:
    if not isinstance(one, dict):
        raise BadRowError(f"a turn must hold 'from' and 'value', found {shown(one)}")
    speaker, value = one.get("from"), one.get("value")
    role = _SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        allowed = ", ".join(_SHAREGPT_ROLES)
        raise BadRowError(f"a turn's 'from' must be one of {allowed}, found {shown(speaker)}")
    return role, text(value, "a turn's 'value'") if value != "" else ""


def _text_row(line: str) -> TraceRow:
    fields = json_object(line)
    prompt: Any
    if ("prompt" in fields) == ("messages" in fields):
        raise BadRowError(f"expected either 'prompt' or 'messages', found {shown(sorted(fields))}")
    if "prompt" in fields:
        prompt = text(fields["prompt"], "prompt")
    else:
        prompt = messages(fields["messages"])
    names = [name for name in ("output_tokens", "max_tokens") if name in fields]
    if not names:
        raise BadRowError("output_tokens (or max_tokens) is missing")
    return TraceRow(None, tokens(fields[names[0]], names[0]), prompt=prompt)


def importer_named(name: str) -> Importer:
    """Return the importer, or raise `UsageError` naming all of them."""
    try:
        return IMPORTERS[name]
    except KeyError:
        raise UsageError(
            f"unknown format '{name}'; allowed: {', '.join(sorted(IMPORTERS))}"
        ) from None
