"""The cache's blocks as vLLM V1 hands them out, and the prefix cache that is made of them.

A full block is found again by the hash of its tokens and of all before them. What nobody holds is
free: blocks without a hash are taken first, then the ones freed longest ago, which are forgotten.

As long as no prompt begins with the first block of another sequence, nothing can be found, and it
is enough to know how many blocks each sequence has in the cache: they are freed together, the last
one first, and forgotten in the same order. Blocks get hashes and entries of their own
(`PrefixBlocks`) once a prompt arrives that begins like something in the cache.
"""

from __future__ import annotations

from collections import deque

from tuner.emulator.cache_memory import BLOCK_TOKENS
from tuner.emulator.engine.prefix_blocks import PrefixBlocks
from tuner.emulator.engine.sequences import Sequence


def blocks_of(tokens: int) -> int:
    """Return how many blocks hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)


class BlockPool:
    """Blocks free and held; `free` are those that nobody holds."""

    def __init__(self, blocks: int, *, caching: bool) -> None:
        self.blocks = blocks
        self.caching = caching
        self.free = blocks
        self._prefixes: PrefixBlocks | None = None  # once two sequences begin alike
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Hold nothing, and know nothing."""
        self._plain = self.blocks  # free, without a hash
        self._first_keys: set[int] = set()  # of what is held, or freed and not forgotten
        self._held: dict[Sequence, int] = {}  # full blocks of each sequence
        self._freed: deque[tuple[Sequence, int]] = deque()  # and how many of its blocks

    @property
    def may_share(self) -> bool:
        """Whether a sequence may find what another one has computed, or is computing."""
        return self._prefixes is not None

    def take(self, count: int) -> None:
        """Hand out free blocks; there must be as many."""
        self.free -= count
        if count <= self._plain:
            self._plain -= count
            return
        count -= self._plain
        self._plain = 0
        if self._prefixes is not None:
            self._prefixes.forget(count)
            return
        while count:
            sequence, blocks = self._freed.popleft()
            if blocks > count:
                self._freed.appendleft((sequence, blocks - count))
                return
            count -= blocks
            self._let_go(sequence)

    def hit(self, sequence: Sequence) -> list[int]:
        """Return the entries of its longest cached prefix; the last token is always computed."""
        most = (sequence.prompt_tokens + sequence.generated - 1) // BLOCK_TOKENS
        if not self.caching or most == 0:
            return []
        if self._prefixes is None:
            if sequence.first_key() not in self._first_keys:
                return []
            self._prefixes = self._told_apart()
        return self._prefixes.hit(sequence, most)

    def idle_among(self, entries: list[int]) -> int:
        """Count the entries that are free now."""
        return 0 if self._prefixes is None else self._prefixes.idle_among(entries)

    def before_forgetting(self, entries: list[int]) -> int:
        """Return how many blocks can be taken before the first of these entries is."""
        if self._prefixes is None:
            return self.free
        return self._plain + self._prefixes.before_forgetting(entries)

    def adopt(self, sequence: Sequence, entries: list[int]) -> None:
        """Let a sequence hold entries that it has hit."""
        if self._prefixes is not None:
            self.free -= self._prefixes.adopt(sequence, entries)
        elif self.caching and sequence.prompt is not None:
            self._hold(sequence)

    def register(self, sequence: Sequence, tokens: int) -> None:
        """Give the blocks that its first `tokens` tokens fill their hashes."""
        if not self.caching or sequence.prompt is None:
            return
        if self._prefixes is None and sequence not in self._held:
            self._hold(sequence)
        if self._prefixes is not None:
            self._prefixes.register(sequence, tokens // BLOCK_TOKENS)
        else:
            self._held[sequence] = max(self._held[sequence], tokens // BLOCK_TOKENS)

    def release(self, sequence: Sequence, tokens: int, known: int) -> None:
        """Take back the blocks of its first `tokens` tokens, the last block first.

        `known` of the tokens can be found again.
        """
        self.register(sequence, known)
        blocks = blocks_of(tokens)
        if self._prefixes is not None:
            blank = blocks - len(sequence.entries)
            self.free += blank + self._prefixes.release(sequence)
            self._plain += blank
            return
        self.free += blocks
        if sequence in self._held:
            full = self._held.pop(sequence)
            blocks -= full
            if full:
                self._freed.append((sequence, full))
            else:
                self._let_go(sequence)
        self._plain += blocks

    def reset(self) -> bool:
        """Forget every prefix; False, and nothing done, while a block is held."""
        if self.free != self.blocks:
            return False
        self._prefixes = None
        self._start_afresh()
        return True

    def _hold(self, sequence: Sequence) -> None:
        """Note a sequence that gets blocks; from here on they may have to be told apart."""
        key = sequence.first_key()
        if key is not None:
            if key in self._first_keys:
                self._prefixes = self._told_apart()
                return
            self._first_keys.add(key)
        self._held[sequence] = 0

    def _let_go(self, sequence: Sequence) -> None:
        """Forget a sequence of which nothing is in the cache any more."""
        key = sequence.first_key()
        if key is not None:
            self._first_keys.remove(key)

    def _told_apart(self) -> PrefixBlocks:
        """Give every block that was full its hash and an entry, in the order of their freeing."""
        prefixes = PrefixBlocks()
        for sequence, blocks in self._freed:
            prefixes.restore(sequence, blocks)
        for sequence, blocks in self._held.items():
            prefixes.register(sequence, blocks)
        for table in (self._first_keys, self._held, self._freed):
            table.clear()
        return prefixes
