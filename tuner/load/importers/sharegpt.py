"""ShareGPT conversations; each answer is a request with all that was said before it.

Format: ShareGPT_V3_unfiltered_cleaned_split.json, as `vllm bench serve --dataset-name sharegpt`
reads it, and its many relatives among the data sets of Hugging Face: `conversations`,
`conversation` or `messages`; `from` and `value`, or `role` and `content`; a JSON array or lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuner.load.importers.importer import Importer
from tuner.load.importers.reading import Reading
from tuner.load.importers.rows.chat_turns import is_unsaid, role_and_text
from tuner.load.importers.rows.json_items import json_items
from tuner.load.importers.rows.other_work import refuse_other_work
from tuner.load.text_request import estimated_tokens
from tuner.load.traces.trace_file import (
    MAX_TOKENS,
    BadRowError,
    TraceRow,
    json_value,
    open_binary,
    read_lines,
    shown,
    unreadable,
)
from tuner.records import Message

_LISTS = ("conversations", "conversation", "messages")
_TOOLS = ("tools", "functions")  # their definitions, which a chat template writes into the prompt


class ShareGptImporter:
    """Reads ShareGPT's conversations, which have text, and neither times nor lengths."""

    caveat = "output lengths estimated from the answers' text"
    block_tokens = None
    has_time_unit = False

    def rows(self, path: Path, reading: Reading) -> Iterator[TraceRow]:
        """Yield the requests; raises `UsageError` that names the item, counted from 1."""
        place, items = (
            ("line", _lines(path, reading)) if _is_lines(path) else ("item", json_items(path))
        )
        for number, item in items:
            try:
                found = list(_requests(item, reading))
            except BadRowError as error:
                reading.refuse(f"{place} {number}", path, error)
                continue
            yield from found


def _is_lines(path: Path) -> bool:
    """Say whether the file holds JSON objects, one a line, instead of an array."""
    try:
        with open_binary(path) as file:
            return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    except (OSError, EOFError) as error:
        raise unreadable(path, error) from None


def _lines(path: Path, reading: Reading) -> Iterator[tuple[int, object]]:
    for number, line in read_lines(path):
        try:
            item = json_value(line)
        except BadRowError as error:
            reading.refuse(f"line {number}", path, error)
            continue
        yield number, item


def _requests(item: object, reading: Reading) -> Iterator[TraceRow]:
    spoken = None
    if isinstance(item, dict):
        spoken = next((item[name] for name in _LISTS if isinstance(item.get(name), list)), None)
    if spoken is None:
        raise BadRowError(f"expected an object with a list 'conversations', found {shown(item)}")
    assert isinstance(item, dict)
    for name, value in item.items():
        refuse_other_work(name, value)
    reading.unused(name for name in _TOOLS if item.get(name))
    said: list[Message] = []
    if isinstance(system := item.get("system"), str) and system:
        said.append(Message("system", system))
    has_request = False
    for turn in spoken:
        role, content = role_and_text(turn, reading)
        if not content and is_unsaid(turn):
            reading.count("turns without text that were left out")
            continue
        # An answer to nothing, as conversations cut out of longer ones begin with, asks nothing.
        if role == "assistant" and said and said[-1].role == "user":
            has_request = True
            length = min(estimated_tokens(content), MAX_TOKENS)
            yield TraceRow(None, length, prompt=tuple(said))
        if content:
            said.append(Message(role, content))
    if not has_request:
        reading.count("conversations without a question and its answer that were left out")


IMPORTER: Importer = ShareGptImporter()
