"""The end of a night: the tuner's own plan of what is measured again, on clean launches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from bench_search_runs import LAUNCH_S, NIGHT_S, SETTLE_S, WINDOW_S, Point, World
from bench_search_scenarios import METRICS, OBJECTIVES

from tuner.analysis.outcomes import front_of
from tuner.analysis.verdicts import as_confirmed, confirmations
from tuner.configuration import Configuration, Value
from tuner.measurement.statistics.unseen_traffic import SloVerdict
from tuner.records import Failure, FailureKind, Measurement, Source, Timing
from tuner.store import RepeatRow, TrialOwner, TrialRow, TrialState
from tuner.study.confirmation.members import Goal
from tuner.study.confirmation.plan import Step, next_step, repeats_left, reserve_s

CLEAN_S = LAUNCH_S + SETTLE_S + WINDOW_S
REPEATS = 4
_OWNER = TrialOwner(1, "boot", "here", "tag")
_EVENING = datetime(2026, 1, 1, 22, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What a user is given, least energy first; `unsure` members are not told to meet the SLOs."""

    members: list[dict[str, Value]]
    unsure: list[dict[str, Value]]
    measurements: int


class Evening:
    """The trials of a night as the tuner stores them, and their confirmation."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self._world = world
        self._rng = rng
        self._goal = Goal(world.scenario.slos, OBJECTIVES, REPEATS)
        self._points: list[dict[str, Value]] = []
        self._trials: list[TrialRow] = []
        self._repeats: list[RepeatRow] = []

    def add(self, point: Point, metrics: Mapping[str, float] | None, at_s: float) -> None:
        """Note a trial; without metrics it was no whole window."""
        number = len(self._trials)
        missed = Failure(FailureKind.CONFIGURATION, "missed")
        self._points.append(dict(point))
        self._trials.append(
            TrialRow(
                number,
                Configuration() if number == 0 else Configuration(flags=dict(point)),
                number == 0,
                state=TrialState.FAILED if metrics is None else TrialState.MEASURED,
                measurement=None if metrics is None else _measurement(metrics),
                failure=missed if metrics is None else None,
                warnings=(),
                started_at=_EVENING + timedelta(seconds=at_s),
                ended_at=None,
                owner=_OWNER,
            )
        )

    @property
    def reserve_s(self) -> float:
        """What the tuner would keep of the night by now."""
        size = len(front_of(self._trials, self._goal.slos, self._goal.objectives))
        return reserve_s(NIGHT_S, size, CLEAN_S)

    def confirm(self, clock_s: float) -> Confirmed:
        """Measure again until everything is decided or the night is over."""
        while left := repeats_left(NIGHT_S, None, clock_s, self._repeats, CLEAN_S):
            step = next_step(self._goal, self._trials, self._repeats, left=left)
            if step is None:
                break
            self._repeat(step, clock_s)
            clock_s += CLEAN_S
        known = confirmations(self._trials, self._repeats, self._goal.slos)
        sure = [t for t in self._trials if t.number in known and known[t.number].is_confirmed]
        front = front_of(
            [as_confirmed(t, known) for t in sure], self._goal.slos, self._goal.objectives
        )
        is_met = [known[t.number].slo is SloVerdict.MET for t in front]
        members = [t for t, met in zip(front, is_met, strict=True) if met]
        unsure = [t for t, met in zip(front, is_met, strict=True) if not met]
        return Confirmed(self._of(members), self._of(unsure), len(self._repeats))

    def _of(self, trials: Sequence[TrialRow]) -> list[dict[str, Value]]:
        return [self._points[trial.number] for trial in trials]

    def _repeat(self, step: Step, clock_s: float) -> None:
        number = step.trial.number
        seen = self._world.measure(self._points[number], self._rng)
        assert seen.metrics is not None  # it was measured before
        at = _EVENING + timedelta(seconds=clock_s)
        self._repeats.append(
            RepeatRow(
                len(self._repeats),
                number,
                step.kind,
                state=TrialState.MEASURED,
                measurement=_measurement(seen.metrics),
                failure=None,
                warnings=(),
                started_at=at,
                ended_at=at + timedelta(seconds=CLEAN_S),
                owner=_OWNER,
                timing=Timing(CLEAN_S, LAUNCH_S),
                traffic=step.traffic,
            )
        )


def _measurement(metrics: Mapping[str, float]) -> Measurement:
    known = {name: metrics[name] for name in METRICS if math.isfinite(metrics[name])}
    return Measurement(known, 0.0, WINDOW_S, Source.EMULATED, Source.EMULATED)
