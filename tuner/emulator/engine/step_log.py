"""The history of an engine: one entry per step or idle stretch, in arrays that grow.

Also when the API server sends its tokens, and the log of what a server wrote: the truth that a
client's token times are compared with.
"""

from __future__ import annotations

from array import array

import numpy as np

from tuner.emulator.engine.sequences import Sequence
from tuner.records import FloatArray


class StepLog:
    """End time, energy so far, requests running and waiting, and the SM clock of each entry.

    What is the same for many entries in a row is kept once for all of them.
    """

    def __init__(self) -> None:
        self._ends_s = array("d")
        self._energies_j = array("d")
        self._repeats = array("q")  # of each row of the columns below
        self._running = array("d")
        self._waiting = array("d")
        self._clocks_mhz = array("d")

    @property
    def length(self) -> int:
        """Number of entries."""
        return len(self._ends_s)

    def append(
        self, end_s: float, energy_j: float, running: int, waiting: int, clock_mhz: float
    ) -> None:
        """Add one entry."""
        self._ends_s.append(end_s)
        self._energies_j.append(energy_j)
        self._repeat(1, running, waiting, clock_mhz)

    def extend(
        self,
        ends_s: FloatArray,
        energies_j: FloatArray,
        running: int,
        waiting: int,
        clock_mhz: float,
    ) -> None:
        """Add consecutive entries with the same requests, at one clock."""
        self._ends_s.frombytes(ends_s.tobytes())
        self._energies_j.frombytes(energies_j.tobytes())
        self._repeat(len(ends_s), running, waiting, clock_mhz)

    def end_s(self, entry: int) -> float:
        """Return when an entry ended."""
        return self._ends_s[entry]

    @property
    def additions(self) -> int:
        """How often entries were added."""
        return len(self._repeats)

    def since(self, entry: int, addition: int) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the entries from `entry` on, and the requests running during each.

        `addition` is the one that began with `entry`.
        """
        ends_s = np.array(self._ends_s[entry:], dtype=np.float64)
        running = np.array(self._running[addition:], dtype=np.float64)
        return ends_s, np.repeat(running, self._repeats[addition:])

    @property
    def ends_s(self) -> FloatArray:
        """When each entry ended; a copy, as are the other columns."""
        return np.array(self._ends_s, dtype=np.float64)

    @property
    def energies_j(self) -> FloatArray:
        """Energy used up to the end of each entry."""
        return np.array(self._energies_j, dtype=np.float64)

    @property
    def running(self) -> FloatArray:
        """Requests running during each entry."""
        return self._column(self._running)

    @property
    def waiting(self) -> FloatArray:
        """Requests waiting during each entry."""
        return self._column(self._waiting)

    @property
    def clocks_mhz(self) -> FloatArray:
        """SM clock during each entry."""
        return self._column(self._clocks_mhz)

    def _repeat(self, count: int, running: int, waiting: int, clock_mhz: float) -> None:
        self._repeats.append(count)
        self._running.append(running)
        self._waiting.append(waiting)
        self._clocks_mhz.append(clock_mhz)

    def _column(self, values: array[float]) -> FloatArray:
        return np.repeat(np.array(values, dtype=np.float64), self._repeats)


class FrontEnd:
    """When the tokens of an engine's steps reach the client, by the API server's event loop.

    It sends the tokens of every step, one after another; a step's wait for those of the steps
    before. Where the loop is slower than the steps, clients see its pace and not the GPU's, until a
    longer step lets it catch up.

    `log` is the engine's, which grows; what is known of it is worked out once.
    """

    def __init__(self, log: StepLog, token_s: float) -> None:
        self._log = log
        self._token_s = token_s
        self._sent_s = array("d")  # of the steps so far
        self._additions = 0  # to the log so far

    def sent_s(self, step: int) -> float:
        """Return when a step's last token was sent."""
        if step >= len(self._sent_s):
            self._go_on()
        return self._sent_s[step]

    @property
    def times_s(self) -> FloatArray:
        """When each step's last token was sent; shape (steps,)."""
        if len(self._sent_s) < self._log.length:
            self._go_on()
        return np.array(self._sent_s, dtype=np.float64)

    def _go_on(self) -> None:
        """Work out the steps that are new: sent = max(made, sent of the step before) + work."""
        known = len(self._sent_s)
        made_s, running = self._log.since(known, self._additions)
        done_s = (running * self._token_s).cumsum()
        # with S the sum of the work, sent - S never falls: it is the latest made - S before it
        ready_s = made_s - done_s + running * self._token_s
        if known:
            ready_s[0] = max(ready_s[0], self._sent_s[-1])
        sent_s = np.maximum.accumulate(ready_s) + done_s
        self._sent_s.frombytes(sent_s.tobytes())
        self._additions = self._log.additions


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
