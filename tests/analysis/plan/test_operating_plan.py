"""A plan keeps its promises on paper: capacity in every interval, energy that adds up."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.replica_kinds import replica_type
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.analysis.plan.demand import demand_of
from tuner.analysis.plan.fleet import Move, cost_of
from tuner.analysis.plan.operating_plan import OperatingPlan, PlanOptions, make_plan
from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve

STEP_S = 1800.0
TYPES = [replica_type("s/1", sleep_w=85.0), replica_type("s/2", 5.0, (200.0, 260.0))]
RATES = st.lists(st.floats(0.0, 20.0), min_size=48, max_size=48).filter(any)


def planned(rates: list[float], **options: float) -> OperatingPlan:
    curve = RateCurve(STEP_S, np.array(rates), "made up")
    return make_plan(TYPES, curve, PlanOptions(gpus=4, step_s=STEP_S, **options))  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None)
@given(rates=RATES, dwell=st.integers(0, 3))
def test_every_interval_has_its_capacity_and_the_energy_adds_up(
    rates: list[float], dwell: int
) -> None:
    plan = planned(rates, dwell_s=dwell * STEP_S)
    capacity = plan.running @ np.array([t.capacity for t in plan.types])
    assert (capacity >= plan.demand.needs * (1.0 - 1e-9)).all()
    assert plan.served.tolist() == rates
    moves_j = sum(cost_of(plan.types[a.kind], a.move) * a.count for a in plan.actions)
    assert plan.energy_j == pytest.approx(plan.power_w.sum() * STEP_S + moves_j)
    assert plan.static is not None
    assert plan.energy_j <= plan.static.energy_j * (1.0 + 1e-9)
    assert plan.static.energy_j <= plan.all_on.energy_j * (1.0 + 1e-9)
    before = plan.running[-1] + plan.asleep[-1]
    for interval in range(plan.demand.intervals):
        own = [a for a in plan.actions if a.interval == interval]
        started = sum(a.count for a in own if a.move is Move.START)
        assert int(before.sum()) + started <= 4  # it loads beside what runs
        ended = sum(a.count for a in own if a.move in (Move.STOP, Move.DROP))
        after = plan.running[interval] + plan.asleep[interval]
        assert int(after.sum()) == int(before.sum()) + started - ended
        before = after


@given(rates=RATES, reserve=st.floats(0.0, 1.0), per_step=st.sampled_from([1, 2, 4]))
def test_the_need_is_never_below_the_load_around_it(
    rates: list[float], reserve: float, per_step: int
) -> None:
    demand = demand_of(RateCurve(STEP_S, np.array(rates), ""), per_step * STEP_S, reserve)
    peaks = np.array(rates).reshape(-1, per_step).max(axis=1)
    for shift in (-1, 0, 1):
        assert (demand.needs >= np.roll(peaks, shift) * (1.0 + reserve) - 1e-9).all()
    assert demand.rates.sum() * per_step == pytest.approx(sum(rates))


def test_more_reserve_in_an_hour_is_in_no_other() -> None:
    curve = RateCurve(STEP_S, np.full(8, 4.0), "")
    needs = demand_of(curve, STEP_S, 0.25, {2: 0.5}).needs
    assert needs.tolist() == [5.0, 5.0, 5.0, 5.0, 7.0, 7.0, 5.0, 5.0]


@given(rates=st.lists(st.floats(0.0, 12.0), min_size=2, max_size=9))
def test_power_grows_with_the_load_and_begins_at_idle(rates: list[float]) -> None:
    kind = replica_type()
    powers_w = kind.power_w(np.array(sorted(rates)))
    assert (np.diff(powers_w) >= -1e-9).all()
    assert kind.power_w(np.zeros(1))[0] == pytest.approx(kind.idle_w)


@pytest.mark.parametrize(
    ("rates", "options", "said"),
    [
        ([30.0] * 48, {}, "at 00:00 the load needs 34.5 requests/s with a reserve of 15 %"),
        ([1.0] * 48, {"gpus": 0}, "give more"),
        ([1.0], {}, "less than two intervals"),
        ([1.0] * 48, {"dwell_s": float("inf")}, "--dwell inf is longer than the load, 86400 s"),
        ([1.0] * 48, {"gpus": 30_000}, "too many to plan at once"),
    ],
)
def test_what_cannot_be_planned_says_why(
    rates: list[float], options: dict[str, float], said: str
) -> None:
    curve = RateCurve(STEP_S, np.array(rates), "made up")
    with pytest.raises(UsageError, match=said):
        make_plan(TYPES, curve, PlanOptions(**{"gpus": 4, "step_s": STEP_S, **options}))  # type: ignore[arg-type]


def test_an_interval_is_as_long_as_a_start() -> None:
    slow = [replica_type(start_s=1000.0)]
    curve = RateCurve(300.0, np.full(288, 5.0), "made up")
    plan = make_plan(slow, curve, PlanOptions(gpus=2, step_s=300.0))
    assert plan.demand.step_s == 1200.0


@pytest.mark.parametrize("step_s", [900.0, STEP_S, 3600.0])
def test_a_power_budget_lets_in_what_is_served(step_s: float) -> None:
    plan = planned([4.0] * 24 + [20.0] * 24, power_budget_w=900.0)
    count = round(86_400.0 / step_s)
    rates = np.repeat([4.0, 20.0], count // 2)
    let_in = plan.admitted(RateCurve(step_s, rates, "made up"))
    assert let_in.length_s == 86_400.0
    hours = let_in.rates.reshape(24, -1).mean(axis=1)
    assert hours == pytest.approx(plan.served.reshape(24, -1).mean(axis=1))
    assert let_in.rates.max() < 20.0
