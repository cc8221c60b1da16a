"""ShareGPT conversations: a JSON array; each answer is a request with all that was said before it.

Format: ShareGPT_V3_unfiltered_cleaned_split.json, as `vllm bench serve --dataset-name sharegpt`
reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuner.load.importers.importer import Importer
from tuner.load.importers.json_items import json_items
from tuner.load.text_request import estimated_tokens
from tuner.load.traces.trace_file import MAX_TOKENS, BadRowError, TraceRow, at_item, shown, text
from tuner.records import Message

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}


class ShareGptImporter:
    """Reads ShareGPT's conversations, which have text, and neither times nor lengths."""

    caveat = "output lengths estimated from the answers' text"
    block_tokens = None

    def rows(self, path: Path) -> Iterator[TraceRow]:
        """Yield the requests; raises `UsageError` that names the item, counted from 1."""
        for number, item in json_items(path):
            try:
                yield from _requests(item)
            except BadRowError as error:
                raise at_item(path, number, error) from None


def _requests(item: object) -> Iterator[TraceRow]:
    spoken = item.get("conversations") if isinstance(item, dict) else None
    if not isinstance(spoken, list):
        raise BadRowError(f"expected an object with a list 'conversations', found {shown(item)}")
    said: list[Message] = []
    for one in spoken:
        role, content = _turn(one)
        # An answer to nothing, as conversations cut out of longer ones begin with, asks nothing.
        if role == "assistant" and said and said[-1].role == "user":
            length = min(estimated_tokens(content), MAX_TOKENS)
            yield TraceRow(None, length, prompt=tuple(said))
        if content:
            said.append(Message(role, content))


def _turn(one: object) -> tuple[str, str]:
    if not isinstance(one, dict):
        raise BadRowError(f"a turn must hold 'from' and 'value', found {shown(one)}")
    speaker, value = one.get("from"), one.get("value")
    role = _ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        allowed = ", ".join(_ROLES)
        raise BadRowError(f"a turn's 'from' must be one of {allowed}, found {shown(speaker)}")
    return role, text(value, "a turn's 'value'") if value != "" else ""


IMPORTER: Importer = ShareGptImporter()
