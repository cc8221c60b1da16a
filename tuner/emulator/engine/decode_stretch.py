"""Steps in which the same sequences decode, worked out ahead; and the jitter of their times."""

from __future__ import annotations

import math

import numpy as np

from tuner.records import FloatArray

_DRAWN_AT_ONCE = 1024
MOST_STEPS = 4096  # taken together
STEPS = np.arange(MOST_STEPS, dtype=np.float64)


class DecodeStretch:
    """Steps ahead of one engine, as long as nothing happens to it.

    Attributes:
        nominal_s: modelled duration of each step.
        ends_s: when each ends, with its jitter.
        energies_j: energy used by the end of each, shape (steps,).
        powers_w: of all GPUs, shape (steps,).
        clock_mhz: of all steps.
        made: how many have been made.
        noted: how many of those the engine has taken note of.
    """

    __slots__ = ("clock_mhz", "ends_s", "energies_j", "made", "nominal_s", "noted", "powers_w")

    def __init__(
        self,
        nominal_s: FloatArray,
        factors: FloatArray | None,
        powers_w: FloatArray,
        clock_mhz: float,
        clock_s: float,
        energy_j: float,
    ) -> None:
        durations_s = nominal_s if factors is None else nominal_s * factors
        self.nominal_s: list[float] = nominal_s.tolist()
        self.ends_s: list[float] = _running_total(clock_s, durations_s).tolist()
        self.energies_j = _running_total(energy_j, powers_w * durations_s)
        self.powers_w = powers_w
        self.clock_mhz = clock_mhz
        self.made = 0
        self.noted = 0


def _running_total(start: float, values: FloatArray) -> FloatArray:
    """Add up one by one, as steps do; shape as `values`."""
    return np.concatenate([[start], values]).cumsum()[1:]


class Jitter:
    """How much longer or shorter than modelled each step takes: log-normal, a stream per engine.

    The factors are the same whether they are taken one by one, many at once, or looked at ahead.
    """

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

    def ahead(self, count: int) -> FloatArray:
        """Return what `factor` will, the next `count` times; shape (count,)."""
        if self._next + count > self._drawn.size:
            self._draw(count)
        drawn: list[float] = self._drawn[self._next : self._next + count].tolist()
        return np.array([math.exp(self._deviation * x) for x in drawn])

    def skip(self, count: int) -> None:
        """Take the next `count`, which were looked at ahead."""
        self._next += count

    def _draw(self, count: int) -> None:
        """Have at least `count` ahead."""
        more = self._random.standard_normal(max(count, _DRAWN_AT_ONCE))
        self._drawn = np.concatenate([self._drawn[self._next :], more])
        self._next = 0


def evenly_spaced(first: float, last: float, count: int) -> FloatArray:
    """Return `count` numbers, at least 2: `np.linspace`, for a tenth of its time."""
    values = STEPS[:count] * ((last - first) / (count - 1)) + first
    values[-1] = last
    return values
