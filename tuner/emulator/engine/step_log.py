"""The history of an engine: one entry per step or idle stretch, in arrays that grow.

And that of what a server wrote: the truth for whoever times its tokens.
"""

from __future__ import annotations

import numpy as np

from tuner.emulator.engine.sequences import Sequence
from tuner.records import FloatArray

_FIRST_ROOM = 4096
_COLUMNS = 5


class StepLog:
    """End time, energy so far, requests running and waiting, and the SM clock of each entry."""

    def __init__(self) -> None:
        self.length = 0
        self._columns = np.empty((_COLUMNS, _FIRST_ROOM))

    def append(
        self, end_s: float, energy_j: float, running: int, waiting: int, clock_mhz: float
    ) -> None:
        """Add one entry."""
        self._reserve(1)
        self._columns[:, self.length] = (end_s, energy_j, running, waiting, clock_mhz)
        self.length += 1

    def extend(
        self,
        ends_s: FloatArray,
        energies_j: FloatArray,
        running: int,
        waiting: int,
        clock_mhz: float,
    ) -> None:
        """Add consecutive entries with the same requests, at one clock."""
        count = len(ends_s)
        self._reserve(count)
        new = self._columns[:, self.length : self.length + count]
        new[0], new[1], new[2], new[3], new[4] = ends_s, energies_j, running, waiting, clock_mhz
        self.length += count

    @property
    def ends_s(self) -> FloatArray:
        """When each entry ended."""
        return self._columns[0, : self.length]

    @property
    def energies_j(self) -> FloatArray:
        """Energy used up to the end of each entry."""
        return self._columns[1, : self.length]

    @property
    def running(self) -> FloatArray:
        """Requests running during each entry."""
        return self._columns[2, : self.length]

    @property
    def waiting(self) -> FloatArray:
        """Requests waiting during each entry."""
        return self._columns[3, : self.length]

    @property
    def clocks_mhz(self) -> FloatArray:
        """SM clock during each entry."""
        return self._columns[4, : self.length]

    def _reserve(self, count: int) -> None:
        room = self._columns.shape[1]
        if self.length + count > room:
            larger = np.empty((_COLUMNS, max(2 * room, self.length + count)))
            larger[:, : self.length] = self._columns[:, : self.length]
            self._columns = larger


class WriteLog:
    """When the events of each answer were written: before and after the write, monotonic s.

    An answer's events are its tokens', one for each step that made some, then its end.
    """

    def __init__(self) -> None:
        self._times_s: dict[Sequence, list[tuple[float, float]]] = {}

    def append(self, sequence: Sequence, before_s: float, after_s: float) -> None:
        """Note that an event of an answer was written in between."""
        self._times_s.setdefault(sequence, []).append((before_s, after_s))

    def by_prompt_tokens(self) -> dict[int, FloatArray]:
        """Return the rows (before, after) of each answer by the length of its prompt."""
        return {s.prompt_tokens: np.array(times) for s, times in self._times_s.items()}
