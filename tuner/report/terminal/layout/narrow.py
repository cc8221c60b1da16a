"""Narrow terminals: tables in parts that fit, and words that break where their parts meet."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.containers import Lines
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_Column = TypeVar("_Column")
_PART = re.compile(r"[/_,=-]")  # a long word may end after one of these


def fits(console: Console, table: Table) -> bool:
    """Say whether the table can be shown without folding a cell."""
    unlimited = console.options.update(width=10_000)
    return Measurement.get(console, unlimited, table).maximum <= console.width


def tables_that_fit(
    console: Console, columns: Sequence[_Column], table: Callable[[Sequence[_Column]], Table]
) -> list[Table]:
    """Return one table of all columns, or several with as many of them as fit, in order.

    `table` makes one of some columns, with the one that names the rows in front. A column that does
    not fit alone is a table nevertheless.
    """
    found, left = [], list(columns)
    while left:
        count = len(left)
        while count > 1 and not fits(console, table(left[:count])):
            count -= 1
        found.append(table(left[:count]))
        left = left[count:]
    return found


class Parts(Text):
    """A text whose long words, such as names of models and knobs, break where their parts meet."""

    def wrap(self, console: Console, width: int, **options: object) -> Lines:
        """Return the lines; a part that is longer than a line is folded as ever."""
        broken = Lines()
        for line in self.split(allow_blank=True):
            for piece in line.divide(_breaks(line.plain, width)):
                broken.extend(Text.wrap(piece, console, width, **options))  # type: ignore[arg-type]
        return broken


def _breaks(text: str, width: int) -> list[int]:
    """Return where words that are longer than a line are cut: after as many parts as fit."""
    breaks: list[int] = []
    for word in re.finditer(r"\S+", text):
        if len(word[0]) <= width:
            continue
        start = last = word.start()
        for part in (*_PART.finditer(text, *word.span()), None):
            end = word.end() if part is None else part.end()
            if end - start > width and last > start:
                breaks.append(last)
                start = last
            last = end
    return breaks
