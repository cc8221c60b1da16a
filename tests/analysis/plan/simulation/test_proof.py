"""The proof sees what the paper does not: a fleet that is too small, and what it really used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.replica_kinds import replica_type

from tuner.analysis.plan.operating_plan import OperatingPlan, PlanOptions, make_plan
from tuner.analysis.plan.simulation.proof import prove, prove_constant
from tuner.analysis.plan.simulation.scene import Scene, Task
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator.fleet.routing import Routing
from tuner.load.day.rate_curve import RateCurve
from tuner.load.workload import load_workload
from tuner.slo import Slo

HOUR_S = 3600.0
CURVE = RateCurve(HOUR_S, np.array([1.0, 1.0, 4.0, 1.0, 1.0]), "made up")


def scene(*slos: str) -> Scene:
    wanted = tuple(map(Slo.parse, slos or ("p99_ttft_ms<=1000",)))
    return Scene(
        load_model("meta-llama/Llama-3.1-8B-Instruct"),
        load_gpu("H100-SXM"),
        (Task("code", load_workload("code"), wanted),),
        requests=200,
    )


def planned(capacity: float, gpus: int) -> OperatingPlan:
    kind = replica_type(capacity=capacity, powers_w=(400.0, 450.0, 500.0, 550.0))
    options = PlanOptions(gpus=gpus, step_s=HOUR_S, reserve=0.0, dwell_s=0.0)
    return make_plan([kind], CURVE, options)


def test_a_plan_with_room_holds_and_one_that_was_promised_too_much_does_not() -> None:
    good = prove(planned(2.0, 4), scene(), [CURVE], Routing.LEAST_BUSY)
    assert good.holds and len(good.hours) == 5
    assert good.requests == sum(h.good + h.late + h.dropped for h in good.hours)
    assert good.energy_j == pytest.approx(sum(h.energy_j for h in good.hours), rel=0.02)
    strict = prove(planned(2.0, 4), scene("p99_ttft_ms<=1"), [CURVE], Routing.LEAST_BUSY)
    assert not strict.holds and strict.worst.attainment == 0.0
    assert sum(h.late for h in strict.hours) == strict.requests
    median = scene("p50_ttft_ms<=1000").tasks[0]
    assert median.needed == 0.5


def test_every_slo_is_judged_by_its_own_statistic() -> None:
    """The gaps between tokens too, pooled over the requests of an hour."""
    plan = planned(2.0, 4)
    met = ("p99_itl_ms<=100", "p50_itl_ms<=50", "mean_itl_ms<=30", "mean_ttft_ms<=1000")
    good = prove(plan, scene(*met), [CURVE], Routing.LEAST_BUSY)
    assert good.holds and not any(h.missed for h in good.tasks[0].hours)
    for missed in ("p50_itl_ms<=1", "mean_itl_ms<=1", "mean_ttft_ms<=1", "p99_tpot_ms<=1"):
        wanted = scene(*met, "p50_ttft_ms<=1000", missed)
        proof = prove(plan, wanted, [CURVE], Routing.LEAST_BUSY)
        assert not proof.holds
        assert proof.worst.missed == (missed,)


def test_tasks_on_the_same_replicas_are_judged_by_their_own_slos() -> None:
    code = scene().tasks[0]
    chat = Task("chat", load_workload("chat"), (Slo.parse("p99_e2el_ms<=1"),), weight=2.0)
    both = replace(scene(), tasks=(code, chat))
    half = RateCurve(HOUR_S, CURVE.rates / 2.0, "half")
    proof = prove(planned(2.0, 4), both, [half, half], Routing.CONSOLIDATE)
    good, late = proof.tasks
    assert good.holds and not late.holds and not proof.holds
    assert proof.weakest is late and late.worst.attainment == 0.0
    requests = [sum(h.requests for h in task.hours) for task in proof.tasks]
    assert sum(requests) == proof.requests
    assert min(requests) > 0.3 * proof.requests


def test_the_fixed_fleet_is_judged_on_the_same_requests() -> None:
    plan = planned(2.0, 4)
    assert plan.static is not None
    ours = prove(plan, scene(), [CURVE], Routing.LEAST_BUSY)
    theirs = prove_constant(plan, plan.static, scene(), [CURVE], Routing.LEAST_BUSY)
    assert ours.requests == theirs.requests
    assert ours.energy_j < theirs.energy_j
    again = prove(plan, scene(), [CURVE], Routing.LEAST_BUSY)
    assert again == ours
    other = prove(plan, replace(scene(), seed=1), [CURVE], Routing.LEAST_BUSY)
    assert other.requests != ours.requests


def test_replicas_that_think_more_give_longer_answers_and_use_more() -> None:
    """The same questions; where the model ends its answers they are as long as were measured."""
    level = {name: Configuration(load={"thinking": name}) for name in ("off", "low")}
    workload = load_workload("thinking")
    task = Task("thinking", workload, (Slo.parse("p90_e2el_ms<=60000"),), stretch={"low": 0.5})
    off, low = next(task.forms(["off", "low"], seed=3))
    assert low.output_tokens == pytest.approx(off.output_tokens * 3 * 0.5, abs=2)
    assert off.prompt_token_ids.tolist() == low.prompt_token_ids.tolist()
    proofs = {}
    for name, configuration in level.items():
        kind = replica_type(powers_w=(400.0, 450.0, 500.0, 550.0), configuration=configuration)
        options = PlanOptions(gpus=1, step_s=HOUR_S, reserve=0.0, dwell_s=0.0)
        plan = make_plan([kind], CURVE, options)
        small = replace(scene(), tasks=(replace(task, stretch={}),), requests=100)
        proofs[name] = prove(plan, small, [CURVE], Routing.LEAST_BUSY)
    assert proofs["off"].requests == proofs["low"].requests
    assert proofs["off"].holds
    assert proofs["low"].energy_j > proofs["off"].energy_j
