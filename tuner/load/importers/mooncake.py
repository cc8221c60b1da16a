"""Mooncake traces: JSON lines of time in ms, lengths, and hash ids of 512-token prefix blocks.

Format: FAST25-release/traces in github.com/kvcache-ai/Mooncake.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuner.load.importers.importer import Importer
from tuner.load.importers.rows_of_lines import each_line, in_time_order
from tuner.load.traces.trace_file import (
    BadRowError,
    TraceRow,
    hash_ids,
    json_object,
    read_lines,
    time_s,
    tokens,
)

_BLOCK_TOKENS = 512
_UNIT_S = 1e-3


class MooncakeImporter:
    """Reads Mooncake's JSON lines."""

    caveat = ""
    block_tokens = _BLOCK_TOKENS

    def rows(self, path: Path) -> Iterator[TraceRow]:
        """Yield the requests; raises `UsageError` that names the line."""
        return in_time_order(path, each_line(path, read_lines(path), _row))


def _row(line: str) -> TraceRow:
    fields = json_object(line)
    row = TraceRow(
        arrival_s=time_s(fields.get("timestamp"), "timestamp", _UNIT_S),
        prompt_tokens=tokens(fields.get("input_length"), "input_length"),
        output_tokens=tokens(fields.get("output_length"), "output_length"),
        hash_ids=hash_ids(fields.get("hash_ids", []), "hash_ids"),
    )
    assert row.prompt_tokens is not None
    if (len(row.hash_ids) - 1) * _BLOCK_TOKENS >= row.prompt_tokens:
        raise BadRowError(
            f"{len(row.hash_ids)} hash_ids of {_BLOCK_TOKENS} tokens are more than "
            f"input_length {row.prompt_tokens}"
        )
    return row


IMPORTER: Importer = MooncakeImporter()
