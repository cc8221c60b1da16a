"""How much longer or shorter than modelled each step takes: log-normal, one stream per engine."""

from __future__ import annotations

import math

import numpy as np

from tuner.records import FloatArray

_DRAWN_AT_ONCE = 1024


class Jitter:
    """Factors around 1, the same ones whether they are taken one by one or many at once."""

    def __init__(self, deviation: float, seed: int) -> None:
        self._deviation = deviation
        self._random = np.random.default_rng(seed)
        self._drawn = np.empty(0)  # standard normal
        self._next = 0

    def factor(self) -> float:
        """Return the next one."""
        at = self._next
        if at == self._drawn.size:
            self._draw(1)
            at = 0
        self._next = at + 1
        return math.exp(self._deviation * self._drawn.item(at))

    def factors(self, count: int) -> FloatArray:
        """Return the next `count`, shape (count,)."""
        if self._next + count > self._drawn.size:
            self._draw(count)
        drawn = self._drawn[self._next : self._next + count]
        self._next += count
        factors: FloatArray = np.exp(self._deviation * drawn)
        return factors

    def _draw(self, count: int) -> None:
        """Have at least `count` ahead."""
        more = self._random.standard_normal(max(count, _DRAWN_AT_ONCE))
        self._drawn = np.concatenate([self._drawn[self._next :], more])
        self._next = 0
