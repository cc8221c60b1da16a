"""JSON lines of text: `prompt` or `messages`, and `output_tokens` or `max_tokens`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuner.load.importers.importer import Importer
from tuner.load.importers.rows_of_lines import each_line
from tuner.load.traces.trace_file import (
    BadRowError,
    TraceRow,
    json_object,
    messages,
    read_lines,
    shown,
    text,
    tokens,
)
from tuner.records import Prompt


class JsonlImporter:
    """Reads the text of requests as logs of an OpenAI-compatible server have it."""

    caveat = ""
    block_tokens = None

    def rows(self, path: Path) -> Iterator[TraceRow]:
        """Yield the requests; raises `UsageError` that names the line."""
        return (row for _, row in each_line(path, read_lines(path), _row))


def _row(line: str) -> TraceRow:
    fields = json_object(line)
    prompt: Prompt
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


IMPORTER: Importer = JsonlImporter()
