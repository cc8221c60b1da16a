"""Orders of benches that evaluate on the emulator's virtual clock."""

from __future__ import annotations

from pathlib import Path

from tuner.configuration import Configuration
from tuner.devices.limit_control import Access
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.factory import measurement_plan, space_knobs
from tuner.evaluation.remote.protocol import BenchOrder
from tuner.load.workload import load_workload
from tuner.spec.device_ranges import ranges_for
from tuner.spec.search_space import load_space
from tuner.spec.study import StudySpec

SPEC = StudySpec(
    model="Qwen/Qwen3-8B",
    workload="smoke",
    space="power",
    slo=("p99_tpot_ms<=100",),
    concurrency=8,
    emulate="H100-SXM:3",
    window_s=20.0,
    trials=4,
)


def plan() -> MeasurementPlan:
    return measurement_plan(SPEC, load_workload("smoke"), Configuration())


def virtual_order(folder: Path) -> BenchOrder:
    knobs = space_knobs(load_space("power", lambda: ranges_for(SPEC)), 1)
    return BenchOrder(SPEC, plan(), knobs, "night-1", folder / "card-3", Access.SET)
