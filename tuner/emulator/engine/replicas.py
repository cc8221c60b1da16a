"""Data parallelism: copies of the engine, each with GPUs of its own, behind one front.

A request goes to the copy with the fewest requests, as vLLM's front does it: one that waits counts
for four. The copies keep their own time, and each goes on while it is the one furthest behind, so
that what happens to one is known, to within a step, before the others pass that moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from heapq import heappop, heappush, heapreplace

from tuner.emulator.engine.decode_stretch import DecodeStretch
from tuner.emulator.engine.engine import Engine, EngineStalledError
from tuner.emulator.engine.sequences import Sequence


class Replicas:
    """The copies; `clock_s` is the latest moment that is known of."""

    def __init__(self, engines: Many[Engine]) -> None:
        self.engines = tuple(engines)
        self.launch = engines[0].launch
        self.clock_s = 0.0
        self._busy: list[tuple[float, int]] = []  # a heap: time and place of each busy copy
        self._ahead: list[DecodeStretch | None] = [None] * len(engines)
        self._looked_ahead = [False] * len(engines)  # since something happened to the copy

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
        loads = [engine.load for engine in self.engines]
        place = loads.index(min(loads))
        engine = self.engines[place]
        if not loads[place]:
            if engine.clock_s < self.clock_s:
                engine.idle(self.clock_s)
            heappush(self._busy, (engine.clock_s, place))
        engine.submit(sequence)
        self._looked_ahead[place] = False
        return engine

    def advance(self, until_s: float) -> list[Sequence]:
        """Run until sequences end or the time is `until_s`; returns those that ended."""
        if self.clock_s >= until_s:
            return []
        while self._busy and self._busy[0][0] < until_s:
            finished = self._in_step(until_s) if len(self._busy) > 1 else self._go_on(until_s)
            if finished:
                return finished
        self._idle(until_s)
        return []

    def _go_on(self, until_s: float) -> list[Sequence]:
        """Let the copy that is furthest behind go on; returns what ended with its last step."""
        place = self._busy[0][1]
        engine = self.engines[place]
        finished = engine.advance(until_s)
        self._looked_ahead[place] = False
        if engine.load:
            heapreplace(self._busy, (engine.clock_s, place))
        else:
            heappop(self._busy)
        if finished:
            self.clock_s = max(self.clock_s, engine.clock_s)
        return finished

    def _in_step(self, until_s: float) -> list[Sequence]:
        """Let the copy that is furthest behind go on, again and again, until sequences end.

        It does until it is at the time of the next one. For most that is a single step of a stretch
        that is known ahead, and is only counted.
        """
        busy, ahead, looked_ahead = self._busy, self._ahead, self._looked_ahead
        many = len(busy) > 2
        while True:
            first_s, place = busy[0]
            if first_s >= until_s:
                return []
            second_s = busy[1][0]
            if many and busy[2][0] < second_s:
                second_s = busy[2][0]
            if not looked_ahead[place]:
                ahead[place] = self.engines[place].stretch_ahead()
                looked_ahead[place] = True
            stretch = ahead[place]
            if stretch is not None and (made := stretch.made) < stretch.count:
                room_s = (second_s if second_s < until_s else until_s) - first_s
                if room_s <= stretch.nominal_s[made]:
                    stretch.made = made + 1
                    heapreplace(busy, (stretch.ends_s[made], place))
                    continue
            finished = self._go_on(min(until_s, max(second_s, math.nextafter(first_s, math.inf))))
            if finished:
                return finished

    def close(self) -> None:
        """Let every copy come up to now, and close what still runs."""
        for engine in self.engines:
            engine.catch_up()
        self._idle(self.clock_s)

    def _idle(self, until_s: float) -> None:
        if not math.isfinite(until_s):
            raise EngineStalledError("nothing to do and nothing to wait for")
        if len(self._busy) < len(self.engines):
            for engine in self.engines:
                if not engine.load and engine.clock_s < until_s:
                    engine.idle(until_s)
        self.clock_s = max(self.clock_s, until_s)
