"""Rate curve: requests/s over steps of equal length, and arrivals drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from tuner.records import FloatArray


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
