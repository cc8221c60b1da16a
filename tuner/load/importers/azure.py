"""Azure LLM inference traces: CSV of time, prompt and output tokens.

Format: AzureLLMInferenceTrace_code.csv and _conv.csv in github.com/Azure/AzurePublicDataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tuner.load.importers.importer import Importer
from tuner.load.importers.reading import Reading
from tuner.load.importers.rows.rows_of_lines import csv_rows, tokens_in
from tuner.load.traces.trace_file import BadRowError, TraceRow, moment_s, shown

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class AzureImporter:
    """Reads Azure's CSV; columns may stand in any order, times may have a zone."""

    caveat = ""
    block_tokens = None
    has_time_unit = False

    def rows(self, path: Path, reading: Reading) -> Iterator[TraceRow]:
        """Yield the requests; raises `UsageError` that names the line.

        Requests with images, which AzureLMMInferenceTrace has, are refused.
        """
        return csv_rows(path, reading, _COLUMNS, _row)


def _row(fields: Sequence[str]) -> TraceRow:
    time, prompt, output = fields
    return TraceRow(
        arrival_s=_moment_s(time),
        prompt_tokens=tokens_in(prompt, "ContextTokens"),
        output_tokens=tokens_in(output, "GeneratedTokens"),
    )


def _moment_s(field: str) -> float:
    try:
        return moment_s(field)
    except ValueError:
        raise BadRowError(
            f"TIMESTAMP must look like 2023-11-16 18:15:46.68, found {shown(field)}"
        ) from None


IMPORTER: Importer = AzureImporter()
