"""Heaviness of a stretch: how long its latencies are on a reference server, against all others.

A control variate of what a real server shows on the same stretch: it needs to follow it only so far
as it does, which is learned from the windows (`tuner.measurement.statistics.stretch_effects`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from tuner.load.heaviness.reference_server import Arrival, tpots_s
from tuner.load.workload import Workload
from tuner.metrics import HEAVINESS_DRAWS
from tuner.records import Load, Request
from tuner.slo import Slo

# The stretches that tell how heavy those of a workload are; nothing is measured on them.
_FIRST_DRAW = 10_000_000
_MOST_REQUESTS = 5_000  # in a stretch, and in a trace: more take long to read or to draw
# The reference server is so fast that it just holds, as what may be recommended does.
_OF_BOUND = 0.8
_TO_SET_SPEED = 8  # stretches
_SLOWEST, _FASTEST, _HALVINGS = 1.0, 0.001, 14  # steps, of the bound


@dataclass(slots=True)
class StretchHeaviness:
    """How heavy the stretches of a workload are for an SLO on TPOT, in an open load.

    Attributes:
        workload: whose unseen stretches they are.
        rate: requests per second.
        slo: on a statistic of TPOT.
        window_s: the beginning and the end of a window, s after the load began.
    """

    workload: Workload
    rate: float
    slo: Slo
    window_s: tuple[float, float]
    _scale: _Scale | None = field(default=None, init=False)

    def prepare(self) -> None:
        """Draw the stretches that others are compared with, once; it takes seconds."""
        if self._scale is not None:
            return
        step_s = self._step_s([self._draw(n) for n in range(_TO_SET_SPEED)])
        # one at a time: a stretch may have thousands of requests
        values = [self._log_tpot(self._draw(n), step_s) for n in range(HEAVINESS_DRAWS)]
        self._scale = _Scale.of_all(values, step_s)

    def of(self, number: int) -> float | None:
        """Return how heavy unseen stretch `number` is.

        In standard deviations from the mean of all stretches; None if answers are too long, or too
        rare, for one to end in each window, or if all stretches are the same.
        """
        self.prepare()
        assert self._scale is not None
        return self._scale.of(self._log_tpot(self._arrivals(number), self._scale.step_s))

    def _draw(self, number: int) -> list[Arrival]:
        """Return one of the stretches that others are compared with."""
        return self._arrivals(_FIRST_DRAW + number)

    def _arrivals(self, number: int) -> list[Arrival]:
        end_s = self.window_s[1]
        requests: Iterator[Request] = self.workload.unseen(number).requests()
        arrivals = (
            Arrival(r.arrival_s / self.rate, r.prompt_token_ids.size, r.output_tokens)
            for r in requests
        )
        return list(takewhile(lambda a: a.at_s < end_s, arrivals))

    def _step_s(self, draws: Sequence[Sequence[Arrival]]) -> float:
        """Return how long a step is on the server that just holds on average, s."""
        fast_s, slow_s = (share * self.slo.bound / 1e3 for share in (_FASTEST, _SLOWEST))
        wanted = math.log(_OF_BOUND * self.slo.bound / 1e3)
        for _ in range(_HALVINGS):
            middle_s = math.sqrt(fast_s * slow_s)
            mean = statistics.fmean(self._log_tpot(draw, middle_s) for draw in draws)
            if mean < wanted:
                fast_s = middle_s
            else:
                slow_s = middle_s
        return fast_s

    def _log_tpot(self, arrivals: Sequence[Arrival], step_s: float) -> float:
        """Return the logarithm of the SLO's statistic of TPOT in the window; inf without any."""
        values_s = tpots_s(arrivals, step_s, *self.window_s)
        if not values_s:
            return math.inf
        statistic = self.slo.metric.partition("_")[0]
        is_mean = statistic == "mean"
        value = np.mean(values_s) if is_mean else np.percentile(values_s, float(statistic[1:]))
        return math.log(float(value))


@dataclass(frozen=True, slots=True)
class _Scale:
    """The reference server's step, s, and the mean and spread of log TPOT over stretches."""

    step_s: float
    mean: float
    spread: float

    @classmethod
    def of_all(cls, values: Sequence[float], step_s: float) -> _Scale:
        """Return the scale; without a spread where an answer is missing."""
        if math.inf in values:
            return cls(step_s, math.inf, 0.0)
        return cls(step_s, statistics.fmean(values), statistics.stdev(values))

    def of(self, value: float) -> float | None:
        is_known = self.spread > 0.0 and value < math.inf
        return (value - self.mean) / self.spread if is_known else None


def stretch_heaviness(
    workload: Workload, load: Load, slos: Sequence[Slo], window_s: tuple[float, float]
) -> StretchHeaviness | None:
    """Return the heaviness of a workload's stretches, None where it is not known in advance.

    That is in a closed loop, whose requests come as others end, without an SLO on TPOT, and where
    a window or the trace has very many requests.
    """
    rate = load.request_rate
    slo = next((slo for slo in slos if slo.metric.endswith("_tpot_ms")), None)
    if rate is None or slo is None:
        return None
    if max(rate * window_s[1], workload.facts.rows if workload.facts else 0) > _MOST_REQUESTS:
        return None
    return StretchHeaviness(workload, rate, slo, window_s)
