"""A proved plan has the reserve that it needs, and the router that keeps the SLO with margin."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.replica_kinds import replica_type

from tuner.analysis.plan.plan_request import PlanRequest
from tuner.analysis.plan.pools import Pool
from tuner.analysis.plan.proved_plan import proved_together, router_with_margin
from tuner.analysis.plan.simulation.proof import Hour, Proof
from tuner.analysis.plan.simulation.scene import Scene, Task
from tuner.analysis.plan.simulation.tallies import Tally, TaskProof, enough
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator.fleet.routing import Routing
from tuner.load.day.rate_curve import RateCurve
from tuner.load.workload import load_workload
from tuner.slo import Slo

HOUR_S = 3600.0
CURVE = RateCurve(HOUR_S, np.array([1.0, 2.1, 1.0, 1.0]), "made up")
SLOS = (Slo.parse("p90_ttft_ms<=2000"),)
# Promised to take less than it does, so that both of them hold where the plan does not know it.
SLOW = replica_type(
    "s/1", 1.0, (200.0, 210.0), configuration=Configuration(device={"sm_clock_mhz": 1020})
)
FAST = replica_type("s/2", 2.0, (600.0, 650.0))


def pool() -> Pool:
    task = Task("code", load_workload("code"), SLOS)
    model, gpu = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_gpu("H100-SXM")
    return Pool(
        tasks=("code",),
        model=model.name,
        gpu="H100-SXM",
        types=(SLOW, FAST),
        slos=(SLOS,),
        weights=(1.0,),
        curves=(CURVE,),
        judges=(CURVE,),
        scene=Scene(model, gpu, (task,), 200),
        notes=(),
        emulated=True,
    )


def request(reserve: float | None) -> PlanRequest:
    return PlanRequest(
        studies=["s"],
        loads=[],
        gpus=2,
        step_s=HOUR_S,
        dwell_s=0.0,
        reserve=reserve,
        routing=Routing.LEAST_BUSY,
    )


def test_a_plan_has_no_more_reserve_than_a_better_fleet_that_stays_as_it_is() -> None:
    """All on with the slow one takes 2 requests/s of 2.1: it holds, and a plan may do the same."""
    (asked,) = proved_together([pool()], request(0.15))
    assert asked.plan.options.reserve == 0.15
    assert asked.plan.running[:, 1].any() and asked.saved is not None and asked.saved < 0.0
    (found,) = proved_together([pool()], request(None))
    assert found.plan.options.reserve == pytest.approx(2.0 / 2.1 - 1.0)
    assert not found.plan.running[:, 1].any()
    assert found.proof is not None and found.proof.holds
    assert asked.proof is not None and found.proof.energy_j < asked.proof.energy_j
    assert "with a reserve of -5 %" in found.notes[-1]


def proof(routing: Routing, energy_j: float, good: int) -> Proof:
    tally = Tally(0, 1000, good, 1000 - good, 0, ())
    task = TaskProof("chat", (tally,), 0.99, 50.0, 100.0, 20.0)
    hour = Hour(0, 1000, good, 1000 - good, 0, energy_j)
    return Proof(routing, (hour,), (task,), energy_j, 60.0, HOUR_S)


def test_an_hour_has_to_be_better_than_just_good_enough() -> None:
    """Or it would not be on other traffic, every other time."""
    assert [proof(Routing.LEAST_BUSY, 1.0, good).holds for good in (990, 994, 996)] == [
        False,
        False,
        True,
    ]
    assert enough(0.99, 40) == 1.0
    assert enough(0.99, 10**8) == pytest.approx(0.99, abs=1e-4)


def test_of_routers_with_about_the_same_energy_the_one_with_margin_is_taken() -> None:
    close = proof(Routing.BY_LENGTH, 1000.0, 996)
    safe = proof(Routing.ROUND_ROBIN, 1005.0, 999)
    dear = proof(Routing.LEAST_BUSY, 1200.0, 1000)
    missed = proof(Routing.CONSOLIDATE, 800.0, 950)
    assert router_with_margin([close, safe, dear, missed]) is Routing.ROUND_ROBIN
    assert router_with_margin([close, dear]) is Routing.BY_LENGTH
    assert router_with_margin([missed, proof(Routing.BY_ANSWER, 700.0, 500)]) is Routing.CONSOLIDATE
