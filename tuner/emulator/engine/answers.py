"""What an emulated model answers: tokens that depend on the prompt and the precision alone.

A greedy answer is the same in every configuration, as a correct server's is. A cache or weights of
fewer bits make one token in a thousand come out differently, and all that follow it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.catalog.model import ModelShape
from tuner.emulator.launch_rules import Launch
from tuner.records import TokenArray

FIRST_TOKEN_ID = 3  # below it are the special tokens
_CHANGED_SHARE = 1e-3  # of the tokens, where the precision is not the model's own
_OWN_CACHE_BYTES = 2
_ANSWER_TOKENS = (32, 1024)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

_Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Answers:
    """The model's answers; `precision` is empty for the model's own, else it names another one."""

    vocabulary: int
    precision: str = ""

    def tokens(self, prompt: TokenArray, count: int, seed: int | None = None) -> TokenArray:
        """Return the first `count` tokens of the answer; with a `seed`, those of a sampled one."""
        digest = hashlib.blake2b(prompt.astype("<i4").tobytes(), digest_size=8)
        if seed is not None:
            digest.update(b"sampled" + str(seed).encode())
        words = _stream(digest.digest(), count)
        if self.precision:
            digest.update(self.precision.encode())
            other = _stream(digest.digest(), count)
            unlike = np.nonzero(other < np.uint64(_CHANGED_SHARE * 2.0**64))[0]
            if unlike.size:
                words[unlike[0] :] = other[unlike[0] :] * _MIX[0]
        span = max(self.vocabulary - FIRST_TOKEN_ID, 1)
        return ((words >> np.uint64(32)) % np.uint64(span)).astype(np.int32) + FIRST_TOKEN_ID

    def length(self, prompt: TokenArray, seed: int | None = None) -> int:
        """Return after how many tokens the answer ends by itself."""
        digest = hashlib.blake2b(prompt.astype("<i4").tobytes(), digest_size=8, person=b"length")
        digest.update(b"" if seed is None else str(seed).encode())
        shortest, longest = _ANSWER_TOKENS
        return shortest + int.from_bytes(digest.digest(), "little") % (longest - shortest + 1)


def answers_of(model: ModelShape, launch: Launch) -> Answers:
    """Return what the model answers with the cache that it was launched with."""
    precision = "" if launch.kv_bytes == _OWN_CACHE_BYTES else f"cache of {launch.kv_bytes} B"
    return Answers(model.vocabulary, precision)


def _stream(seed: bytes, count: int) -> _Words:
    """Return SplitMix64's words: each depends on its place only, so a prefix stays a prefix."""
    start = np.uint64(int.from_bytes(seed, "little"))
    words = start + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64)
    words = (words ^ (words >> np.uint64(30))) * _MIX[0]
    words = (words ^ (words >> np.uint64(27))) * _MIX[1]
    mixed: _Words = words ^ (words >> np.uint64(31))
    return mixed
