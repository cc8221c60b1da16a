"""The history of an engine: one entry per step or idle stretch, in arrays that grow.

Also when the API server sends its tokens, and the log of what a server wrote: the truth that a
client's token times are compared with.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

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

    def since(self, addition: int, entry: int) -> Iterator[tuple[array[float], float]]:
        """Yield what was added from an addition on: ends of entries, and requests running.

        `entry` is the first one of that addition.
        """
        ends_s, repeats, running = self._ends_s, self._repeats, self._running
        for place in range(addition, len(repeats)):
            after = entry + repeats[place]
            yield ends_s[entry:after], running[place]
            entry = after

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
        sent_s = self._sent_s
        last_s = sent_s[-1] if sent_s else 0.0
        for made_s, running in self._log.since(self._additions, len(sent_s)):
            self._additions += 1
            work_s = running * self._token_s
            if len(made_s) == 1:
                last_s = max(made_s[0], last_s) + work_s
                sent_s.append(last_s)
                continue
            # sent - the work so far never falls: it is the latest of made - the work before it
            done_s = work_s * np.arange(len(made_s))
            starts_s = np.frombuffer(made_s) - done_s
            starts_s[0] = max(made_s[0], last_s)
            found_s = np.maximum.accumulate(starts_s) + done_s + work_s
            sent_s.frombytes(found_s.tobytes())
            last_s = sent_s[-1]


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
