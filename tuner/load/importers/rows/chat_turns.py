"""Turns of a conversation as logs and data sets have them, as the messages that we send.

We send system, user and assistant messages of text. The text of a tool's answer goes to the model
as its tokens all the same, so it is sent as the user's, and a call of a tool as the assistant's own
words; both are counted. A part that is no text is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.load.importers.reading import Reading
from tuner.load.traces.trace_file import BadRowError, shown, text
from tuner.records import Message

_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "developer": "system",
}
_CALLS = {"function_call", "tool_call"}
_ANSWERS = {"observation", "tool", "function", "function_response", "tool_response", "ipython"}
_SAID = ("value", "content", "text")
_TEXT_PARTS = {"text", "input_text", "output_text"}


def role_and_text(turn: object, reading: Reading) -> tuple[str, str]:
    """Return who said what; the text is empty if nothing was said. Raises `BadRowError`."""
    if not isinstance(turn, dict):
        raise BadRowError(
            f"a turn must hold 'from' and 'value' (or 'role' and 'content'), found {shown(turn)}"
        )
    role = _role(turn, reading)
    said = [_text(_content(turn)), *_called(turn.get("tool_calls"), reading)]
    if turn.get("function_call"):
        said += _called([turn["function_call"]], reading)
    return role, "\n".join(part for part in said if part)


def messages_of(turns: object, reading: Reading) -> tuple[Message, ...]:
    """Return what is sent for a list of messages. Raises `BadRowError`."""
    if not isinstance(turns, list) or not turns:
        raise BadRowError(f"messages must be a list of messages, found {shown(turns)}")
    found = []
    for turn in turns:
        role, content = role_and_text(turn, reading)
        if content:
            found.append(Message(role, content))
        else:
            reading.count("messages without text that were left out")
    if not found:
        raise BadRowError("no message has text")
    return tuple(found)


def is_unsaid(turn: Mapping[str, Any]) -> bool:
    """Say whether a turn holds nothing at all, rather than a text of no length."""
    return all(turn.get(name) is None for name in _SAID)


def _role(turn: dict[str, Any], reading: Reading) -> str:
    speaker = turn.get("from", turn.get("role"))
    name = speaker.strip().lower() if isinstance(speaker, str) else ""
    if name in _CALLS:
        reading.count("calls of tools that are sent as the assistant's text")
        return "assistant"
    if name in _ANSWERS:
        reading.count("answers of tools that are sent as the user's text")
        return "user"
    if name not in _ROLES:
        allowed = ", ".join([*_ROLES, *sorted(_CALLS | _ANSWERS)])
        raise BadRowError(f"a turn's speaker must be one of {allowed}, found {shown(speaker)}")
    return _ROLES[name]


def _content(turn: dict[str, Any]) -> object:
    for name in _SAID:
        if name in turn:
            return turn[name]
    if "tool_calls" in turn or "function_call" in turn:
        return None
    raise BadRowError(f"a turn must hold 'value' (or 'content'), found {shown(turn)}")


def _text(content: object) -> str:
    if content is None or content == "":
        return ""
    if isinstance(content, list):
        return "\n".join(part for part in map(_part, content) if part)
    return text(content, "a turn's 'value' (or 'content')")


def _part(part: object) -> str:
    if isinstance(part, str):
        return _text(part)
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in _TEXT_PARTS:
        raise BadRowError(f"a part of a message is {shown(kind or part)}, which is not text")
    return _text(part.get("text"))


def _called(calls: object, reading: Reading) -> Sequence[str]:
    """Return the calls of tools as the model wrote them: name and arguments."""
    if not calls:
        return ()
    if not isinstance(calls, list):
        raise BadRowError(f"tool_calls must be a list, found {shown(calls)}")
    reading.count("calls of tools that are sent as the assistant's text")
    return [_text(json.dumps(_function(call), ensure_ascii=False)) for call in calls]


def _function(call: object) -> object:
    if not isinstance(call, dict):
        raise BadRowError(f"a call of a tool must be an object, found {shown(call)}")
    return call.get("function", call)
