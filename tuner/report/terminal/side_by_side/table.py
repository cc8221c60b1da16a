"""Studies side by side for a terminal: a column each, or a block each where it is too narrow."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.analysis.side_by_side import SideBySide
from tuner.report.side_by_side import Row, how_to_read, rows_of, side_by_side_json
from tuner.report.terminal.layout.narrow import Parts

__all__ = ["show_side_by_side", "side_by_side_json"]

_NAMES, _LEAST_COLUMN = 24, 22  # characters


def show_side_by_side(console: Console, found: SideBySide) -> None:
    """Print the studies; percentages in parentheses are 95 % intervals."""
    names = [study.identity.name for study in found.studies]
    rows = rows_of(found)
    if console.width >= _NAMES + len(names) * _LEAST_COLUMN:
        console.print(_columns(names, rows))
    else:
        for at, name in enumerate(names):
            console.print(_block(name, rows, at))
    console.print(Text(how_to_read(found), style="dim"))
    for study in found.studies:
        if study.why_none is not None:
            console.print(Text(f"{study.identity.name}: {study.why_none}", style="yellow"))
    for note in found.notes:
        console.print(Text.assemble(("note: ", "yellow"), note))


def _columns(names: list[str], rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", style="dim", overflow="fold")
    for name in names:
        table.add_column(Parts(name, style="bold"), overflow="fold")
    for row in rows:
        if row.cells:
            table.add_row(Parts(row.name), *map(Parts, row.cells))
        else:
            table.add_section()
            table.add_row(Text(row.name, style="bold"))
    return table


def _block(name: str, rows: list[Row], at: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.title = Text(name, style="bold")
    table.title_justify = "left"
    table.add_column(style="dim", overflow="fold")
    table.add_column(overflow="fold")
    for row in rows:
        cells = [Parts(row.cells[at])] if row.cells else []
        table.add_row(Text(row.name, style="" if row.cells else "bold"), *cells)
    table.add_row("")
    return table
