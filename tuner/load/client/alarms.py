"""Alarms: what is to be called if nothing else happens by a time, with one timer for all of it.

A timer of its own for each of a thousand streams took 0.6 kB each, and hardly any ever rings.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable


class Alarms:
    """The alarms of one load."""

    def __init__(self) -> None:
        self._due_s: dict[Callable[[], None], float] = {}
        self._rings_s = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, ring: Callable[[], None], due_s: float) -> None:
        """Call `ring` at a monotonic time, s, instead of at the one that was set before."""
        self._due_s[ring] = due_s
        if due_s < self._rings_s:
            self._ring_at(due_s)

    def drop(self, ring: Callable[[], None]) -> None:
        """Do not call `ring`."""
        self._due_s.pop(ring, None)

    def close(self) -> None:
        """Call nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring_at(self, due_s: float) -> None:
        self.close()
        self._rings_s = due_s
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, due_s - time.monotonic()), self._ring)

    def _ring(self) -> None:
        now_s = time.monotonic()
        for ring in [ring for ring, due_s in self._due_s.items() if due_s <= now_s]:
            self.drop(ring)
            ring()
        self._rings_s = math.inf
        if self._due_s:
            self._ring_at(min(self._due_s.values()))
