"""Demand: the load of each interval of a plan, and the capacity that has to stand ready for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve
from tuner.records import FloatArray

HOUR_S = 3600.0

Counts = NDArray[np.int64]
_NOWHERE: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Per interval of `step_s`: the mean rate, and the rate to be ready for, requests/s.

    `gpus` is how many GPUs may be used in each; None is all that there are.
    """

    step_s: float
    rates: FloatArray
    needs: FloatArray
    gpus: Counts | None = None

    @property
    def intervals(self) -> int:
        """How many there are."""
        return len(self.rates)

    @property
    def hours(self) -> int:
        """How many hours are begun."""
        return math.ceil(self.intervals * self.step_s / HOUR_S)

    def most_gpus(self, interval: int) -> float:
        """Return how many GPUs may be used in an interval, or in a start out of it."""
        return math.inf if self.gpus is None else int(self.gpus[interval])

    def hour_of(self, interval: int) -> int:
        """Return the hour that an interval begins in, from 0."""
        return int(interval * self.step_s / HOUR_S)


def demand_of(
    curve: RateCurve, step_s: float, reserve: float, more_in: Mapping[int, float] = _NOWHERE
) -> Demand:
    """Return the demand of a curve.

    The need is the highest rate of the interval and of the two beside it, since a load comes
    earlier or later on another day, times 1 + `reserve`, and more in the hours of `more_in`. Raises
    `UsageError` for a step that does not divide the curve.
    """
    per_step = step_s / curve.step_s
    if per_step >= 1.0:
        count = round(per_step)
        if abs(per_step - count) > 1e-9:
            raise UsageError(
                f"--step {step_s:g}: it must be a multiple of the load's own {curve.step_s:g} s"
            )
        whole = -(-len(curve.rates) // count) * count
        padded = np.concatenate([curve.rates, np.full(whole - len(curve.rates), np.nan)])
        rows = padded.reshape(-1, count)
        rates, peaks = np.nanmean(rows, axis=1), np.nanmax(rows, axis=1)
    else:
        count = round(1.0 / per_step)
        if abs(count * step_s - curve.step_s) > 1e-6:
            raise UsageError(
                f"--step {step_s:g}: the load's own {curve.step_s:g} s must be a multiple of it"
            )
        rates = peaks = np.repeat(curve.rates, count)
    beside = np.maximum(np.roll(peaks, 1), np.roll(peaks, -1))
    hours = [int(place * step_s / HOUR_S) for place in range(len(rates))]
    reserves = np.array([reserve + more_in.get(hour, 0.0) for hour in hours])
    return Demand(step_s, rates, np.maximum(peaks, beside) * (1.0 + reserves))
