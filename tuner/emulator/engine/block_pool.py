"""The cache's blocks as vLLM V1 hands them out, and the prefix cache that is made of them.

A full block is found again by the hash of its tokens and of all before them. What nobody holds is
free: blocks without a hash are taken first, then the ones freed longest ago, which are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from tuner.emulator.cache_memory import BLOCK_TOKENS
from tuner.emulator.engine.sequences import Sequence


def blocks_of(tokens: int) -> int:
    """Return how many blocks hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)


class BlockPool:
    """Blocks free and held; those that have a hash are entries with a number of their own."""

    def __init__(self, blocks: int, *, caching: bool) -> None:
        self.blocks = blocks
        self.caching = caching
        self._plain = blocks  # free, without a hash
        self._idle: OrderedDict[int, None] = OrderedDict()  # free entries, the next to go first
        self._keys: dict[int, int] = {}  # of each entry
        self._cached: dict[int, int] = {}  # key to the first entry that has it
        self._twins: dict[int, list[int]] = {}  # key to further entries, computed side by side
        self._sharers: dict[int, int] = {}  # entries that more than one sequence holds
        self._next_entry = 0

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self._plain + len(self._idle)

    def take(self, count: int) -> None:
        """Hand out free blocks; there must be as many."""
        plain = min(count, self._plain)
        self._plain -= plain
        for _ in range(count - plain):
            entry, _none = self._idle.popitem(last=False)
            self._forget(entry)

    def hit(self, sequence: Sequence) -> list[int]:
        """Return the entries of its longest cached prefix; the last token is always computed."""
        if not self.caching:
            return []
        most = (sequence.prefill_tokens - 1) // BLOCK_TOKENS
        entries: list[int] = []
        for key in islice(sequence.keys(most), most):  # more may be known
            entry = self._cached.get(key)
            if entry is None:
                break
            entries.append(entry)
        return entries

    def idle_among(self, entries: list[int]) -> int:
        """Count the entries that are free now."""
        return sum(entry in self._idle for entry in entries)

    def before_forgetting(self, entries: list[int]) -> int:
        """Return how many blocks can be taken before the first of these entries is."""
        idle = {entry for entry in entries if entry in self._idle}
        if not idle:
            return self.free
        return self._plain + next(i for i, entry in enumerate(self._idle) if entry in idle)

    def adopt(self, sequence: Sequence, entries: list[int]) -> None:
        """Let a sequence hold entries that it has hit."""
        for entry in entries:
            if entry in self._idle:
                del self._idle[entry]
            else:
                self._sharers[entry] = self._sharers.get(entry, 1) + 1
        sequence.entries = entries

    def register(self, sequence: Sequence, tokens: int) -> None:
        """Give the blocks that its first `tokens` tokens fill their hashes."""
        held, full = len(sequence.entries), tokens // BLOCK_TOKENS
        if not self.caching or full <= held:
            return
        keys = list(islice(sequence.keys(full), held, full))
        entries = list(range(self._next_entry, self._next_entry + len(keys)))
        self._next_entry += len(keys)
        self._keys.update(zip(entries, keys, strict=True))
        for key, entry in zip(keys, entries, strict=True):
            if self._cached.setdefault(key, entry) != entry:
                self._twins.setdefault(key, []).append(entry)
        sequence.entries += entries

    def release(self, sequence: Sequence, tokens: int, known: int) -> None:
        """Take back the blocks of its first `tokens` tokens, the last block first.

        `known` of the tokens can be found again.
        """
        self.register(sequence, known)
        self._plain += blocks_of(tokens) - len(sequence.entries)
        for entry in reversed(sequence.entries):
            sharers = self._sharers.get(entry)
            if sharers is None:
                self._idle[entry] = None
            elif sharers == 2:
                del self._sharers[entry]
            else:
                self._sharers[entry] = sharers - 1
        sequence.entries = []

    def reset(self) -> bool:
        """Forget every prefix; False, and nothing done, while a block is held."""
        if self.free != self.blocks:
            return False
        self._plain = self.blocks
        for table in (self._idle, self._keys, self._cached, self._twins):
            table.clear()
        return True

    def _forget(self, entry: int) -> None:
        key = self._keys.pop(entry)
        twins = self._twins.get(key)
        if twins is None:
            del self._cached[key]
            return
        if self._cached[key] == entry:
            self._cached[key] = twins.pop(0)
        else:
            twins.remove(entry)
        if not twins:
            del self._twins[key]
