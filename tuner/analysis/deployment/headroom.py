"""Headroom: the highest load at which a configuration still meets every SLO.

The *margin* of a load is the least bound / latency over the SLOs: 1 where the SLOs just hold. In an
open loop it falls in nearly a straight line over the rate. The time of a token grows with the
requests in the batch, which by Little's law are rate x time of an answer, so its reciprocal is
linear in the rate; and so is that of the wait in a queue, 1 / (capacity - rate). In a closed loop
the latency itself is nearly linear in the concurrency. A secant through what was measured
therefore finds the crossing in two or three loads, and one more on its other side proves it. Where
the studied load is less than a quarter of the headroom, or a full batch ends it suddenly, six loads
may leave the two ends further apart than 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.records import Failure, Measurement
from tuner.slo import Slo

MOST_PROBES = 6
CLOSE_ENOUGH = 1.05  # ratio of the lowest load that missed to the highest that held
_NEIGHBOUR = 1.048  # of a load; leaves room for its rounding
_JUST_BELOW = 1.02  # a load so far below the expected crossing holds, and its 1.05-fold misses
# Ratios: further away a straight line is no guide, through two loads or through one and a guess.
_MOST_STEP = 2.5
_FIRST_STEP = 1.6
_LEAST_FOR_A_SECANT = 2  # measurements: the crossing, and its neighbour
_MISSED = 0.99
_MOST_LOG = 20.0
_ROUNDING = 1.0 + 1e-9


@dataclass(frozen=True, slots=True)
class Probe:
    """A load, requests/s or requests in flight, and its margin; 0 if it could not be served."""

    load: float
    margin: float

    @property
    def holds(self) -> bool:
        """Whether every SLO was met."""
        return self.margin >= 1.0


def margin(result: Measurement | Failure, slos: Sequence[Slo]) -> float:
    """Return the least bound / latency; 0 for a load that the configuration could not serve.

    A window that was ended early has only a lower bound of the SLO that it missed: what is returned
    may be too large, but is below 1.
    """
    if isinstance(result, Failure) or any(slo.metric not in result.metrics for slo in slos):
        return 0.0
    worst = max((slo.violation(result.metrics[slo.metric]) for slo in slos), default=-math.inf)
    least = math.exp(min(-worst, _MOST_LOG))
    return least if result.ended_early is None else min(least, _MISSED)


@dataclass(frozen=True, slots=True)
class Headroom:
    """The highest load that held below the lowest that missed; None if none did.

    They are neighbours if their ratio is at most `CLOSE_ENOUGH`, or in a closed loop if no whole
    number lies between them.
    """

    holds: float | None
    misses: float | None

    def is_closed(self, *, whole: bool) -> bool:
        """Say whether the two loads are neighbours; `whole` for a closed loop."""
        if self.holds is None or self.misses is None:
            return False
        is_close = self.misses <= self.holds * CLOSE_ENOUGH * _ROUNDING
        return is_close or (whole and self.misses - self.holds <= 1.0)


def headroom_of(probes: Sequence[Probe]) -> Headroom:
    """Return what the measured loads tell."""
    misses = min((p.load for p in probes if not p.holds), default=None)
    held = [p.load for p in probes if p.holds and (misses is None or p.load < misses)]
    return Headroom(max(held, default=None), misses)


def next_load(probes: Sequence[Probe], first: float, *, whole: bool = False) -> float | None:
    """Return the load to measure next, or None when the headroom is found.

    `first` is where to begin: the studied load, which the confirmation has measured already. It
    depends only on what was measured, so that a killed search resumes where it stopped.
    """
    if not probes:
        return first
    left = MOST_PROBES - len(probes)
    known = headroom_of(probes)
    if left <= 0 or known.is_closed(whole=whole):
        return None
    load = _wanted(probes, known, left, whole=whole)
    return _whole(load, known) if whole else float(f"{load:.4g}")


def _wanted(probes: Sequence[Probe], known: Headroom, left: int, *, whole: bool) -> float:
    low, high = known.holds, known.misses
    if low is not None and high is not None:
        bisections = math.ceil(math.log2(math.log(high / low) / math.log(CLOSE_ENOUGH)))
        if left <= bisections and (left < _LEAST_FOR_A_SECANT or not _served(probes, high)):
            return math.sqrt(low * high)
    crossing = _crossing(probes, whole=whole)
    if crossing is None and low is not None and high is not None:
        return math.sqrt(low * high)
    if crossing is None:
        end = probes[-1].load
        crossing = end / _MOST_STEP if low is None else low * _MOST_STEP
    # a neighbour of an end proves the crossing; without the other end, a wrong guess steps further
    step = _NEIGHBOUR ** (1 if low is not None and high is not None else len(probes))
    if low is not None and crossing <= low * step:
        return low * step
    if high is not None and crossing >= high / step:
        return high / step
    around = [p.load for p in probes]
    far = _MOST_STEP if sum(p.margin > 0.0 for p in probes) >= 2 else _FIRST_STEP
    return min(max(crossing / _JUST_BELOW, min(around) / far), max(around) * far)


def _served(probes: Sequence[Probe], load: float) -> bool:
    """Say whether a load has a margin to draw a line through."""
    return any(p.load == load and p.margin > 0.0 for p in probes)


def _crossing(probes: Sequence[Probe], *, whole: bool) -> float | None:
    """Return where the straight line through the two nearest loads has margin 1, if it falls."""
    served = sorted((p for p in probes if p.margin > 0.0), key=lambda p: p.load)
    if len({p.load for p in served}) < 2:
        return _from_one(served[0]) if served else None
    first, second = _nearest_pair(served)
    heights = [_height(p, whole=whole) for p in (first, second)]
    slope = (heights[1] - heights[0]) / (second.load - first.load)
    if slope >= 0.0:
        return None
    crossing = second.load - (heights[1] - _height(Probe(1.0, 1.0), whole=whole)) / slope
    return crossing if crossing > 0.0 else None


def _nearest_pair(served: Sequence[Probe]) -> tuple[Probe, Probe]:
    """Return the loads on both sides of the crossing, or the two nearest on its one side."""
    above = [p for p in served if not p.holds]
    below = [p for p in served if p.holds and (not above or p.load < above[0].load)]
    if below and above:
        return below[-1], above[0]
    pair = below[-2:] if below else above[:2]
    return (pair[0], pair[1]) if len(pair) == 2 else (served[0], served[1])


def _from_one(point: Probe) -> float:
    """Return the crossing if half of this load's latency were there without any load."""
    return point.load * min(max(2.0 - 1.0 / point.margin, 1.0 / _MOST_STEP), _MOST_STEP)


def _height(point: Probe, *, whole: bool) -> float:
    return -1.0 / point.margin if whole else point.margin


def _whole(load: float, known: Headroom) -> float | None:
    """Return a whole number strictly between the ends that are known, None if there is none."""
    low = 0.0 if known.holds is None else known.holds
    most = math.inf if known.misses is None else known.misses - 1.0
    if most <= low:
        return None  # not even one request at a time
    return float(min(max(round(load), low + 1.0), most))
