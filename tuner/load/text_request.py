"""Requests whose prompt is text: the server tokenizes it and applies its chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tuner.records import Request, TokenArray

# Of English text with the vocabularies of 2024 and later; the server counts exactly.
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


Prompt: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TextRequest(Request):
    """A request that is sent as `prompt`: text, or messages.

    Its `prompt_token_ids` are never sent. They stand in for the tokens where there is no
    tokenizer: as many as the text has by estimate, all alike.
    """

    prompt: Prompt


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has: one for four bytes, and at least one."""
    return max(1, -(-len(text.encode()) // _BYTES_PER_TOKEN))


def estimated_prompt_tokens(prompt: Prompt) -> int:
    """Return about how many tokens a prompt has."""
    if isinstance(prompt, str):
        return estimated_tokens(prompt)
    return sum(estimated_tokens(message.content) for message in prompt)


def stand_in_ids(tokens: int) -> TokenArray:
    """Return so many ids that take no memory."""
    return np.broadcast_to(np.int32(0), tokens)
