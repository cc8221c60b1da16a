"""Plan request: what a plan is asked for, and the loads that it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuner.analysis.plan.operating_plan import DWELL_S, RESERVE, STEP_S, PlanOptions
from tuner.analysis.plan.simulation.scene import REQUESTS
from tuner.emulator.fleet.routing import Routing
from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve, alike
from tuner.load.day.read import DayFormat, read_day

_SAME_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a plan is asked for; see `tuner plan --help`.

    Attributes:
        studies: with operating points; of one workload for a single load, else one for each load.
        loads: the file of a day for each task.
        judges: those of another day, to prove the plan on; empty for the same one, drawn anew.
        scale: every rate times this.
        reserve: None begins with 15 %, and takes less where a fleet that stays as it is does.
        routing: None compares them all.
        simulated: about how many requests of a task to simulate for a proof; 0 proves nothing.
        note: is told of the progress.
        mixes_answers: whether thinking, or the steps of pictures, may change by the hour.
    """

    studies: Sequence[str]
    loads: Sequence[Path]
    gpus: int
    load_format: DayFormat | None = None
    scale: float = 1.0
    judges: Sequence[Path] = ()
    step_s: float = STEP_S
    dwell_s: float = DWELL_S
    reserve: float | None = None
    routing: Routing | None = None
    power_budget_w: float | None = None
    simulated: int = REQUESTS
    seed: int = 0
    note: Callable[[str], None] = field(default=lambda _: None)
    mixes_answers: bool = False

    @property
    def first_reserve(self) -> float:
        """The reserve that planning begins with."""
        return RESERVE if self.reserve is None else self.reserve

    @property
    def options(self) -> PlanOptions:
        """What is asked of the schedule."""
        return PlanOptions(
            gpus=self.gpus,
            step_s=self.step_s,
            reserve=self.first_reserve,
            dwell_s=self.dwell_s,
            power_budget_w=self.power_budget_w,
        )


def curves_of(request: PlanRequest) -> tuple[tuple[RateCurve, ...], tuple[RateCurve, ...]]:
    """Return the loads, and those that the plan is proved on; each in the same steps.

    Raises `UsageError` for a file that is no load, and for loads of different hours.
    """

    def read(paths: Sequence[Path]) -> tuple[RateCurve, ...]:
        found = [read_day(path, request.load_format).scaled(request.scale) for path in paths]
        return alike(found)

    curves = read(request.loads)
    if not request.judges:
        return curves, curves
    if len(request.judges) != len(request.loads):
        raise UsageError(
            f"--judge is given {len(request.judges)} times and --load {len(request.loads)}: give "
            "another day for each load, in the same order"
        )
    judges = read(request.judges)
    for curve, judge in zip(curves, judges, strict=True):
        _require_same_hours(curve, judge)
    return curves, judges


def _require_same_hours(curve: RateCurve, judge: RateCurve) -> None:
    if abs(curve.length_s - judge.length_s) > _SAME_S:
        raise UsageError(
            f"{judge.source} lasts {judge.length_s / 3600:.4g} h and {curve.source} "
            f"{curve.length_s / 3600:.4g} h: give a --judge of the same hours"
        )
    begins = [None if c.starts_at is None else c.starts_at.time() for c in (curve, judge)]
    if None not in begins and begins[0] != begins[1]:
        raise UsageError(
            f"{judge.source} begins at {begins[1]} and {curve.source} at {begins[0]}: give a "
            "--judge of the same hours"
        )
