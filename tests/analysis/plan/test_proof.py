"""The proof sees what the paper does not: a fleet that is too small, and what it really used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.replica_kinds import replica_type

from tuner.analysis.plan.operating_plan import OperatingPlan, PlanOptions, make_plan
from tuner.analysis.plan.proof import Scene, prove, prove_constant
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.emulator.fleet.routing import Routing
from tuner.load.day.rate_curve import RateCurve
from tuner.load.workload import load_workload
from tuner.slo import Slo

HOUR_S = 3600.0
CURVE = RateCurve(HOUR_S, np.array([1.0, 1.0, 4.0, 1.0, 1.0]), "made up")


def scene(slo: str = "p99_ttft_ms<=1000") -> Scene:
    return Scene(
        load_model("meta-llama/Llama-3.1-8B-Instruct"),
        load_gpu("H100-SXM"),
        load_workload("code"),
        (Slo.parse(slo),),
        requests=200,
    )


def planned(capacity: float, gpus: int) -> OperatingPlan:
    kind = replica_type(capacity=capacity, powers_w=(400.0, 450.0, 500.0, 550.0))
    options = PlanOptions(gpus=gpus, step_s=HOUR_S, reserve=0.0, dwell_s=0.0)
    return make_plan([kind], CURVE, options)


def test_a_plan_with_room_holds_and_one_that_was_promised_too_much_does_not() -> None:
    good = prove(planned(2.0, 4), scene(), CURVE, Routing.LEAST_BUSY)
    assert good.holds and len(good.hours) == 5
    assert good.requests == sum(h.good + h.late + h.dropped for h in good.hours)
    assert good.energy_j == pytest.approx(sum(h.energy_j for h in good.hours), rel=0.02)
    strict = prove(planned(2.0, 4), scene("p99_ttft_ms<=1"), CURVE, Routing.LEAST_BUSY)
    assert not strict.holds and strict.worst.attainment == 0.0
    assert sum(h.late for h in strict.hours) == strict.requests
    median = scene("p50_ttft_ms<=1000")
    assert median.needed == 0.5


def test_the_fixed_fleet_is_judged_on_the_same_requests() -> None:
    plan = planned(2.0, 4)
    assert plan.static is not None
    ours = prove(plan, scene(), CURVE, Routing.LEAST_BUSY)
    theirs = prove_constant(plan, plan.static, scene(), CURVE, Routing.LEAST_BUSY)
    assert ours.requests == theirs.requests
    assert ours.energy_j < theirs.energy_j
    again = prove(plan, scene(), CURVE, Routing.LEAST_BUSY)
    assert again == ours
    other = prove(plan, replace(scene(), seed=1), CURVE, Routing.LEAST_BUSY)
    assert other.requests != ours.requests
