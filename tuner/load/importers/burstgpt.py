"""BurstGPT traces: CSV of time, prompt and response tokens of ChatGPT and GPT-4 on Azure.

Format: BurstGPT_1.csv and BurstGPT_2.csv in github.com/HPMLL/BurstGPT (arXiv:2401.17644), with the
columns Timestamp (s from the start), Model, Request tokens, Response tokens, Total tokens and Log
Type; later files have more columns. A request that failed has no response tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tuner.load.importers.importer import Importer
from tuner.load.importers.reading import Reading
from tuner.load.importers.registry import TimeUnit
from tuner.load.importers.rows.rows_of_lines import csv_rows, tokens_in
from tuner.load.traces.trace_file import BadRowError, TraceRow, shown, time_s

_COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
_NOT_WORK = ("Model", "Total tokens", "Log Type")


class BurstGptImporter:
    """Reads BurstGPT's CSV; the requests of all its models are one load."""

    caveat = ""
    block_tokens = None
    has_time_unit = True

    def rows(self, path: Path, reading: Reading) -> Iterator[TraceRow]:
        """Yield the requests; raises `UsageError` that names the line.

        A failed request is refused, because its amount of work is unknown.
        """
        unit_s = (reading.time_unit or TimeUnit.S).seconds
        return csv_rows(path, reading, _COLUMNS, partial(_row, unit_s), not_work=_NOT_WORK)


def _row(unit_s: float, fields: Sequence[str]) -> TraceRow:
    time, prompt, output = fields
    if output == "0":
        raise BadRowError(
            "a request that failed (Response tokens is 0), so its amount of work is unknown; "
            "use the file without failures (BurstGPT_without_fails_1.csv)"
        )
    return TraceRow(
        arrival_s=time_s(_number(time), "Timestamp", unit_s),
        prompt_tokens=tokens_in(prompt, "Request tokens"),
        output_tokens=tokens_in(output, "Response tokens"),
    )


def _number(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        raise BadRowError(
            f"Timestamp must be seconds from the start of the trace, found {shown(field)}"
        ) from None


IMPORTER: Importer = BurstGptImporter()
