"""A tokenizer of the emulator's own: one token for each word or sign, the same in every process.

It counts about as a real one does for English, and what it writes it reads back as the same tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

import numpy as np

from tuner.emulator.engine.answers import FIRST_TOKEN_ID
from tuner.records import TokenArray

_PIECES = re.compile(r" ?\w+|\s+|[^\w\s]")
_WRITTEN = re.compile(r" w(\d+)")


def encode(text: str, vocabulary: int) -> TokenArray:
    """Return the tokens of a text."""
    return np.array([_token(piece, vocabulary) for piece in _PIECES.findall(text)], np.int32)


def decode(tokens: Iterable[int]) -> str:
    """Return a text that is read back as these tokens."""
    return "".join(f" w{token}" for token in tokens)


def encode_chat(messages: Iterable[Mapping[str, str]], vocabulary: int) -> TokenArray:
    """Return the tokens of a conversation, up to where the assistant is to speak."""
    said = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in messages)
    return encode(said + "<|assistant|>", vocabulary)


def _token(piece: str, vocabulary: int) -> int:
    written = _WRITTEN.fullmatch(piece)
    if written is not None and int(written[1]) < vocabulary:
        return int(written[1])
    digest = hashlib.blake2b(piece.encode(), digest_size=8).digest()
    span = max(vocabulary - FIRST_TOKEN_ID, 1)
    return FIRST_TOKEN_ID + int.from_bytes(digest, "little") % span
