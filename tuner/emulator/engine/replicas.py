"""Data parallelism: copies of the engine, each with GPUs of its own, behind one front.

A request goes to the copy with the fewest requests, as vLLM's front does it: one that waits counts
for four. The copies keep their own time, and each goes on while it is the one furthest behind, so
that what happens to one is known, to within a step, before the others pass that moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from heapq import heapify, heapreplace

from tuner.emulator.engine.engine import Engine, EngineStalledError
from tuner.emulator.engine.sequences import Sequence

_WAITING_WEIGHT = 4


class Replicas:
    """The copies; `clock_s` is the latest moment that is known of."""

    def __init__(self, engines: Many[Engine]) -> None:
        self.engines = tuple(engines)
        self.launch = engines[0].launch
        self.clock_s = 0.0

    @property
    def running(self) -> int:
        """Number of admitted sequences that are not done."""
        return sum(engine.running for engine in self.engines)

    @property
    def waiting(self) -> int:
        """Number of sequences that wait for admission."""
        return sum(engine.waiting for engine in self.engines)

    @property
    def idle_w(self) -> float:
        """Power of all GPUs with nothing to do."""
        return sum(engine.idle_w for engine in self.engines)

    @property
    def energy_j(self) -> float:
        """Energy used; a copy that is ahead or behind counts up to its own time."""
        return sum([engine.so_far[1] for engine in self.engines])

    @property
    def generation_tokens(self) -> int:
        """Tokens made so far."""
        return sum([engine.so_far[2] for engine in self.engines])

    def submit(self, sequence: Sequence) -> Engine:
        """Queue a sequence at the least busy copy; returns that."""
        engine = min(self.engines, key=load_of)
        if engine.running == engine.waiting == 0 and engine.clock_s < self.clock_s:
            engine.idle(self.clock_s)
        engine.submit(sequence)
        return engine

    def advance(self, until_s: float) -> list[Sequence]:
        """Run until sequences end or the time is `until_s`; returns those that ended."""
        if self.clock_s >= until_s:
            return []
        busy = [(e.so_far[0], place) for place, e in enumerate(self.engines) if e.busy]
        if len(busy) == 1:
            finished = self._alone(self.engines[busy[0][1]], until_s)
        else:
            finished = self._in_step(busy, until_s)
        if not finished:
            self._idle(until_s)
        return finished

    def _alone(self, engine: Engine, until_s: float) -> list[Sequence]:
        """Let the only copy that has something to do go on."""
        while engine.clock_s < until_s:
            finished = engine.advance(until_s)
            if finished:
                self.clock_s = max(self.clock_s, engine.clock_s)
                return finished
        return []

    def _in_step(self, busy: list[tuple[float, int]], until_s: float) -> list[Sequence]:
        """Let the copy that is furthest behind go on, again and again.

        It does until it is at the time of the next one. For most that is a single step of a stretch
        that is known ahead, and is only counted. `busy` are the times and places of the copies.
        """
        heapify(busy)
        ahead = [engine.stretch_ahead() for engine in self.engines]
        while busy and busy[0][0] < until_s:
            first_s, place = busy[0]
            second_s = busy[1][0]
            if len(busy) > 2 and busy[2][0] < second_s:
                second_s = busy[2][0]
            stretch = ahead[place]
            if stretch is not None and (made := stretch.made) < len(stretch.ends_s):
                room_s = (second_s if second_s < until_s else until_s) - first_s
                if room_s <= stretch.nominal_s[made]:
                    stretch.made = made + 1
                    heapreplace(busy, (stretch.ends_s[made], place))
                    continue
            first = self.engines[place]
            finished = first.advance(min(until_s, max(second_s, math.nextafter(first_s, math.inf))))
            if finished:
                self.clock_s = max(self.clock_s, first.clock_s)
                return finished
            heapreplace(busy, (first.clock_s, place))
            ahead[place] = first.stretch_ahead()
        return []

    def close(self) -> None:
        """Let every copy come up to now, and close what still runs."""
        for engine in self.engines:
            engine.catch_up()
        self._idle(self.clock_s)

    def _idle(self, until_s: float) -> None:
        if not math.isfinite(until_s):
            raise EngineStalledError("nothing to do and nothing to wait for")
        for engine in self.engines:
            if engine.running == engine.waiting == 0 and engine.clock_s < until_s:
                engine.idle(until_s)
        self.clock_s = max(self.clock_s, until_s)


def load_of(engine: Engine) -> int:
    """Return how busy a copy is, as vLLM's front weighs it."""
    return engine.running + _WAITING_WEIGHT * engine.waiting
