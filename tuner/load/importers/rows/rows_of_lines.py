"""Rows from a file of lines: each line's own error, CSV columns by name, times in order."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tuner.load.importers.reading import Reading
from tuner.load.importers.rows.other_work import refuse_other_work, says_other_work
from tuner.load.traces.trace_file import (
    MAX_TOKENS,
    BadRowError,
    TraceRow,
    at_line,
    read_lines,
    shown,
    tokens,
)

_MOST_DIGITS = 20


def each_line(
    path: Path,
    reading: Reading,
    lines: Iterator[tuple[int, str]],
    read: Callable[[str], TraceRow],
) -> Iterator[tuple[int, TraceRow]]:
    """Yield the number and row of each line; raises `UsageError` that names the line."""
    for number, line in lines:
        try:
            row = read(line)
        except BadRowError as error:
            reading.refuse(f"line {number}", path, error)
            continue
        yield number, row


def in_time_order(path: Path, rows: Iterator[tuple[int, TraceRow]]) -> Iterator[TraceRow]:
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


def csv_rows(
    path: Path,
    reading: Reading,
    columns: Sequence[str],
    read: Callable[[Sequence[str]], TraceRow],
    not_work: Sequence[str] = (),
) -> Iterator[TraceRow]:
    """Read a CSV file with a header, in time order.

    `read` is given the fields of `columns`, wherever they stand in the file. Columns besides them
    and `not_work` are reported; a field of one that holds other work is refused. Raises
    `UsageError` that names the line.
    """
    lines = read_lines(path)
    number, header = next(lines, (1, ""))
    try:
        places = _places(header, columns)
        others = _others(header, columns)
    except BadRowError as error:
        raise at_line(path, number, error) from None

    known = {name.lower() for name in not_work}
    reading.unused(
        name
        for name in others.values()
        if name and name.lower() not in known and not says_other_work(name)
    )

    def row(line: str) -> TraceRow:
        fields = _fields(line)
        for place, name in others.items():
            refuse_other_work(name, fields[place] if place < len(fields) else None)
        if len(fields) <= max(places):
            raise BadRowError(f"expected {max(places) + 1} columns or more, found {shown(line)}")
        return read([fields[place] for place in places])

    yield from in_time_order(path, each_line(path, reading, lines, row))


def tokens_in(field: str, what: str) -> int:
    """Return a length in tokens from a CSV field, or raise `BadRowError`."""
    if not field.isascii() or not field.isdigit() or len(field) > _MOST_DIGITS:
        raise BadRowError(
            f"{what} must be a whole number from 1 to {MAX_TOKENS}, found {shown(field)}"
        )
    return tokens(int(field), what)


def _places(header: str, columns: Sequence[str]) -> list[int]:
    names = [name.lower() for name in _fields(header)] if header else []
    try:
        return [names.index(column.lower()) for column in columns]
    except ValueError:
        raise BadRowError(
            f"expected the columns {', '.join(columns)}, found {shown(header)}"
        ) from None


def _others(header: str, columns: Sequence[str]) -> dict[int, str]:
    asked = {column.lower() for column in columns}
    return {place: name for place, name in enumerate(_fields(header)) if name.lower() not in asked}


def _fields(line: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], strict=True))]
    except (csv.Error, StopIteration) as error:
        raise BadRowError(f"not CSV ({error}): {shown(line)}") from None
