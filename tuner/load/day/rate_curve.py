"""Rate curve: requests/s over steps of equal length, and arrivals drawn from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from tuner.errors import UsageError
from tuner.records import FloatArray

_SAME = 1e-6  # of a step


@dataclass(frozen=True, slots=True, eq=False)
class RateCurve:
    """Mean rates, requests/s, one for each `step_s` from `starts_at` on; None is any midnight.

    `source` says where it is from, for people.
    """

    step_s: float
    rates: FloatArray
    source: str
    starts_at: datetime | None = None

    @property
    def length_s(self) -> float:
        """How long it lasts."""
        return len(self.rates) * self.step_s

    @property
    def requests(self) -> float:
        """How many requests it has."""
        return float(self.rates.sum() * self.step_s)

    def scaled(self, factor: float) -> RateCurve:
        """Return the curve with every rate times `factor`."""
        if factor == 1.0:
            return self
        said = f"{self.source}, times {factor:g}"
        return replace(self, rates=self.rates * factor, source=said)

    def clock(self, after_s: float) -> str:
        """Return the time of day so long after the start, with the date where it is known."""
        if self.starts_at is not None:
            return f"{self.starts_at + timedelta(seconds=after_s):%Y-%m-%d %H:%M}"
        days, rest_s = divmod(after_s, 86_400.0)
        clock = f"{int(rest_s // 3600):02d}:{int(rest_s % 3600 // 60):02d}"
        return f"day {int(days) + 1} {clock}" if self.length_s > 86_400.0 else clock

    def arrivals_s(self, start_s: float, end_s: float, seed: int) -> Iterator[float]:
        """Yield rising times of a Poisson process with these rates, from `start_s` to `end_s`.

        A stretch is the same whichever others are drawn.
        """
        first = int(start_s // self.step_s)
        last = min(int(np.ceil(end_s / self.step_s)), len(self.rates))
        for step in range(first, last):
            rng = np.random.default_rng([seed, step])
            count = int(rng.poisson(self.rates[step] * self.step_s))
            times_s = step * self.step_s + np.sort(rng.random(count)) * self.step_s
            yield from (t for t in times_s.tolist() if start_s <= t < end_s)


def alike(curves: Sequence[RateCurve]) -> tuple[RateCurve, ...]:
    """Return curves of the same time in the shortest of their steps.

    Raises `UsageError` for curves that begin or end at other times, or whose steps do not fit.
    """
    step_s = min(curve.step_s for curve in curves)
    first = curves[0]
    for other in curves:
        if abs(other.length_s - first.length_s) > _SAME * step_s:
            raise UsageError(
                f"{first.source} lasts {first.length_s:g} s and {other.source} "
                f"{other.length_s:g} s; give loads of the same hours"
            )
        if other.starts_at != first.starts_at:
            begins = [str(c.starts_at or "a midnight without a date") for c in (first, other)]
            raise UsageError(
                f"{first.source} begins at {begins[0]} and {other.source} at {begins[1]}; give "
                "loads of the same hours"
            )
        if abs(other.step_s / step_s - round(other.step_s / step_s)) > _SAME:
            raise UsageError(
                f"{other.source} has steps of {other.step_s:g} s, which is no multiple of "
                f"{step_s:g} s; export equal steps"
            )
    return tuple(
        replace(c, step_s=step_s, rates=np.repeat(c.rates, round(c.step_s / step_s)))
        for c in curves
    )


def weighted(curves: Sequence[RateCurve], weights: Sequence[float]) -> RateCurve:
    """Return the sum of curves, each times its weight; raises as `alike`."""
    if len(curves) == 1:
        return curves[0]
    same = alike(curves)
    rates = sum(c.rates * weight for c, weight in zip(same, weights, strict=True))
    source = " + ".join(c.source for c in curves)
    return replace(same[0], rates=np.asarray(rates, dtype=np.float64), source=source)
