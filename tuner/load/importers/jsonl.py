"""JSON lines of text: `prompt` or `messages`, and one of `LENGTHS`, as OpenAI's API names it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tuner.load.importers.importer import Importer
from tuner.load.importers.reading import Reading
from tuner.load.importers.rows.chat_turns import messages_of
from tuner.load.importers.rows.other_work import refuse_other_work, says_other_work
from tuner.load.importers.rows.rows_of_lines import each_line
from tuner.load.traces.trace_file import (
    BadRowError,
    TraceRow,
    json_object,
    read_lines,
    shown,
    text,
    tokens,
)
from tuner.records import Prompt

LENGTHS = ("output_tokens", "max_tokens", "max_completion_tokens")
_FIELDS = {"prompt", "messages", *LENGTHS}
_MORE_ANSWERS = {"n", "best_of"}


class JsonlImporter:
    """Reads the text of requests as logs of an OpenAI-compatible server have it."""

    caveat = ""
    block_tokens = None
    has_time_unit = False

    def rows(self, path: Path, reading: Reading) -> Iterator[TraceRow]:
        """Yield the requests; raises `UsageError` that names the line."""
        read = partial(_row, reading)
        return (row for _, row in each_line(path, reading, read_lines(path), read))


def _row(reading: Reading, line: str) -> TraceRow:
    fields = json_object(line)
    prompt: Prompt
    if ("prompt" in fields) == ("messages" in fields):
        raise BadRowError(f"expected either 'prompt' or 'messages', found {shown(sorted(fields))}")
    if "prompt" in fields:
        prompt = text(fields["prompt"], "prompt")
    else:
        prompt = messages_of(fields["messages"], reading)
    for name, value in fields.items():
        if name in _MORE_ANSWERS and value not in (None, 1):
            raise BadRowError(f"{name} is {shown(value)}: a request for more than one answer")
        refuse_other_work(name, value)
    reading.unused(
        name for name in fields.keys() - _FIELDS - _MORE_ANSWERS if not says_other_work(name)
    )
    named = [name for name in LENGTHS if name in fields]
    names = [name for name in named if fields[name] is not None] or named
    if not names:
        raise BadRowError("output_tokens (or max_tokens, or max_completion_tokens) is missing")
    return TraceRow(None, tokens(fields[names[0]], names[0]), prompt=prompt)


IMPORTER: Importer = JsonlImporter()
