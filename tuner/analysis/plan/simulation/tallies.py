"""Tallies: the simulated requests of each task and hour, and whether they met the SLOs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analysis.plan.simulation.scene import SHARES, Task
from tuner.emulator.fleet.fleet_run import Answered
from tuner.slo import Slo, request_limits_ms

_ITL = "itl_ms"
_SURE = 1.645  # standard errors: of 20 hours that are just good enough one would get here
_GOOD, _LATE, _DROPPED = range(3)


@dataclass(frozen=True, slots=True)
class Tally:
    """One hour of the simulated day: requests, those within every SLO, late and dropped ones.

    `missed` are the SLOs that the hour missed by their own statistic: a percentile of the requests,
    of the gaps between tokens, or a mean. That of the gaps is no part of `good`.
    """

    number: int
    requests: int
    good: int
    late: int
    dropped: int
    missed: tuple[str, ...]

    @property
    def attainment(self) -> float:
        """The share of requests that met every SLO; 1 without any."""
        return self.good / self.requests if self.requests else 1.0


@dataclass(frozen=True, slots=True)
class TaskProof:
    """What the requests of one task got; latencies are of all of them, ms."""

    task: str
    hours: tuple[Tally, ...]
    needed: float
    p50_ttft_ms: float
    p99_ttft_ms: float
    p99_tpot_ms: float

    @property
    def worst(self) -> Tally:
        """The hour of least attainment; one that misses an SLO by its statistic comes first."""
        return min(self.hours, key=lambda hour: (not hour.missed, hour.attainment))

    def is_met(self, hour: Tally) -> bool:
        """Say whether an hour met the SLOs well enough to meet them on other traffic too."""
        return hour.attainment >= enough(self.needed, hour.requests) and not hour.missed

    @property
    def holds(self) -> bool:
        """Whether the SLOs were met in every hour."""
        return all(map(self.is_met, self.hours))


def enough(needed: float, requests: int) -> float:
    """Return the share of simulated requests that has to be good, so that `needed` is on others.

    An hour in which exactly `needed` is good on average gets this far once in 20 times.
    """
    spread = math.sqrt(needed * (1.0 - needed) / max(requests, 1))
    return min(1.0, needed + _SURE * spread)


def gap_bounds_ms(task: Task) -> tuple[float, ...]:
    """Return the bounds of a task on the time between two tokens, ms."""
    return tuple(slo.bound for slo in _of_gaps(task.slos) if not slo.metric.startswith("mean"))


def task_proof(task: Task, answered: Iterable[tuple[int, Answered]]) -> TaskProof:
    """Judge the requests of one task, each with its hour."""
    by_hour: dict[int, list[Answered]] = {}
    for hour, one in answered:
        by_hour.setdefault(hour, []).append(one)
    every = [one for own in by_hour.values() for one in own]
    ttft_ms = [one.ttft_ms for one in every if one.ttft_ms is not None] or [0.0]
    tpot_ms = [one.tpot_ms for one in every if one.tpot_ms is not None] or [0.0]
    return TaskProof(
        task=task.name,
        hours=tuple(_tally(task, hour, own) for hour, own in sorted(by_hour.items())),
        needed=task.needed,
        p50_ttft_ms=float(np.percentile(ttft_ms, 50)),
        p99_ttft_ms=float(np.percentile(ttft_ms, 99)),
        p99_tpot_ms=float(np.percentile(tpot_ms, 99)),
    )


def _tally(task: Task, hour: int, own: Sequence[Answered]) -> Tally:
    limits_ms = request_limits_ms(task.slos)
    fates = [_fate(one, limits_ms) for one in own]
    return Tally(
        number=hour,
        requests=len(own),
        good=fates.count(_GOOD),
        late=fates.count(_LATE),
        dropped=fates.count(_DROPPED),
        missed=tuple(_missed(task.slos, own)),
    )


def _missed(slos: Sequence[Slo], own: Sequence[Answered]) -> Iterator[str]:
    place = -1  # of a bound on gaps
    for slo in slos:
        statistic, _, latency = slo.metric.partition("_")
        if latency == _ITL and statistic != "mean":
            place += 1
            gaps = sum(one.gaps for one in own if one.late_gaps)
            late = sum(one.late_gaps[place] for one in own if one.late_gaps)
            if gaps - late < gaps * SHARES[statistic]:
                yield slo.text
        elif statistic == "mean" and latency in ("ttft_ms", "tpot_ms", "e2el_ms", _ITL):
            mean_ms = _mean_ms(own, latency)
            if mean_ms is not None and mean_ms > slo.bound:
                yield slo.text
        elif statistic in SHARES and latency in ("ttft_ms", "tpot_ms", "e2el_ms"):
            kept = sum(_fate(one, {latency: slo.bound}) == _GOOD for one in own)
            if kept < len(own) * SHARES[statistic]:
                yield slo.text


def _mean_ms(own: Sequence[Answered], latency: str) -> float | None:
    """Return the mean of a latency over what was answered; that of gaps is pooled."""
    if latency == _ITL:
        timed = [(one.tpot_ms * one.gaps, one.gaps) for one in own if one.tpot_ms is not None]
        gaps = sum(count for _, count in timed)
        return sum(ms for ms, _ in timed) / gaps if gaps else None
    values = [v for one in own if (v := getattr(one, latency)) is not None]
    return float(np.mean(values)) if values else None


def _of_gaps(slos: Sequence[Slo]) -> list[Slo]:
    return [slo for slo in slos if slo.metric.partition("_")[2] == _ITL]


def _fate(one: Answered, limits_ms: dict[str, float]) -> int:
    if one.ttft_ms is None:
        return _DROPPED
    known = {"ttft_ms": one.ttft_ms, "tpot_ms": one.tpot_ms, "e2el_ms": one.e2el_ms}
    late = any(
        value is not None and value > limits_ms[name]
        for name, value in known.items()
        if name in limits_ms
    )
    return _LATE if late else _GOOD
