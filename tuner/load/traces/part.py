"""Parts of a trace: the search measures on the first half, the confirmation on the second."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tuner.load.traces.trace_file import TraceRow, read_trace

# Multiples of it, modulo 1, are spread evenly, however many there are.
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_LEAST_ROWS = 4  # a shorter trace is not split


@dataclass(frozen=True, slots=True)
class TracePart:
    """The rows [first, first + rows) of a trace in a circle, beginning at row first + offset."""

    first: int
    rows: int
    offset: int = 0

    def read(self, path: Path) -> Iterator[TraceRow]:
        """Yield the rows; those that come last for the offset arrive after the others.

        They follow a mean gap of the others later.
        """
        begin, end = self.first + self.offset, self.first + self.rows
        first_s = last_s = 0.0
        for index, row in enumerate(islice(read_trace(path), begin, end)):
            last_s = row.arrival_s or 0.0
            first_s = last_s if index == 0 else first_s
            yield row
        if self.offset == 0:
            return
        gap_s = (last_s - first_s) / max(1, end - begin - 1)
        moved_s: float | None = None
        for row in islice(read_trace(path), self.first, begin):
            if row.arrival_s is None:
                yield row
                continue
            if moved_s is None:
                moved_s = last_s + gap_s - row.arrival_s
            yield replace(row, arrival_s=row.arrival_s + moved_s)


def search_part(rows: int) -> TracePart:
    """Return the part that the search measures on; all of a trace too short to be split."""
    return TracePart(0, rows) if rows < _LEAST_ROWS else TracePart(0, rows // 2)


def unseen_part(rows: int, number: int) -> TracePart:
    """Return the part that the search did not see, begun elsewhere for each `number` from 0 on."""
    first = 0 if rows < _LEAST_ROWS else rows // 2
    turn = math.fmod(number * _GOLDEN, 1.0)
    return TracePart(first, rows - first, int(turn * (rows - first)))
