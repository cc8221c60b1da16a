"""Blocks that have a hash, one by one: which are free, which are found again, and by whom held."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from tuner.emulator.engine.sequences import Sequence


class PrefixBlocks:
    """The entries of a prefix cache: full blocks, found by the hash of all tokens up to their end.

    Each entry is a block with a number of its own. Free ones are forgotten in the order in which
    they were freed.
    """

    def __init__(self) -> None:
        self._idle: OrderedDict[int, None] = OrderedDict()  # free entries, the next to go first
        self._keys: dict[int, int] = {}  # of each entry
        self._cached: dict[int, int] = {}  # key to the first entry that has it
        self._twins: dict[int, list[int]] = {}  # key to further entries, computed side by side
        self._sharers: dict[int, int] = {}  # entries that more than one sequence holds
        self._next_entry = 0

    @property
    def idle(self) -> int:
        """Entries that nobody holds."""
        return len(self._idle)

    def forget(self, count: int) -> None:
        """Hand out free entries as blank blocks; there must be as many."""
        for _ in range(count):
            entry, _none = self._idle.popitem(last=False)
            key = self._keys.pop(entry)
            twins = self._twins.get(key)
            if twins is None:
                del self._cached[key]
                continue
            if self._cached[key] == entry:
                self._cached[key] = twins.pop(0)
            else:
                twins.remove(entry)
            if not twins:
                del self._twins[key]

    def hit(self, sequence: Sequence, most: int) -> list[int]:
        """Return the entries of the longest known prefix, of at most so many blocks."""
        entries: list[int] = []
        for key in islice(sequence.keys(most), most):  # more may be known
            entry = self._cached.get(key)
            if entry is None:
                break
            entries.append(entry)
        return entries

    def idle_among(self, entries: list[int]) -> int:
        """Count the entries that are free now."""
        return sum([entry in self._idle for entry in entries])

    def before_forgetting(self, entries: list[int]) -> int:
        """Return how many entries are forgotten before the first of these is."""
        idle = {entry for entry in entries if entry in self._idle}
        if not idle:
            return len(self._idle)
        return next(i for i, entry in enumerate(self._idle) if entry in idle)

    def adopt(self, sequence: Sequence, entries: list[int]) -> int:
        """Let a sequence hold entries that it has hit; returns how many were free."""
        idle = 0
        for entry in entries:
            if entry in self._idle:
                del self._idle[entry]
                idle += 1
            else:
                self._sharers[entry] = self._sharers.get(entry, 1) + 1
        sequence.entries = entries
        return idle

    def register(self, sequence: Sequence, full: int) -> None:
        """Give its first `full` blocks their hashes."""
        held = len(sequence.entries)
        if full <= held:
            return
        keys = sequence.keys(full)[held:full]
        entries = range(self._next_entry, self._next_entry + len(keys))
        self._next_entry += len(keys)
        self._keys.update(zip(entries, keys, strict=True))
        for key, entry in zip(keys, entries, strict=True):
            if self._cached.setdefault(key, entry) != entry:
                self._twins.setdefault(key, []).append(entry)
        sequence.entries += entries

    def release(self, sequence: Sequence) -> int:
        """Take back a sequence's entries, the last one first; returns how many are free now."""
        freed = 0
        for entry in reversed(sequence.entries):
            sharers = self._sharers.get(entry)
            if sharers is None:
                self._idle[entry] = None
                freed += 1
            elif sharers == 2:
                del self._sharers[entry]
            else:
                self._sharers[entry] = sharers - 1
        sequence.entries = []
        return freed

    def restore(self, sequence: Sequence, blocks: int) -> None:
        """Take in free blocks of a sequence that has let them go: the first so many, last first."""
        self.register(sequence, blocks)
        self.release(sequence)
