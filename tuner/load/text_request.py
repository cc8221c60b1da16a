"""Token estimate for text prompts; the server counts them exactly."""

from __future__ import annotations

import numpy as np

from tuner.records import Message, Prompt, TokenArray

# Of English text with the vocabularies of 2024 and later.
_BYTES_PER_TOKEN = 4


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


def marked(prompt: Prompt, number: int) -> Prompt:
    """Return a prompt that shares no beginning with itself under another number."""
    if isinstance(prompt, str):
        return f"({number}) {prompt}"
    first = prompt[0]
    return (Message(first.role, f"({number}) {first.content}"), *prompt[1:])
