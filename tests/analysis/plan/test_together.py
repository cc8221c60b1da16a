"""Plans of several tasks share the GPUs: never more than there are, and the best where they fit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import inf

import numpy as np
import pytest
from helpers.replica_kinds import replica_type
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.analysis.plan.operating_plan import PlanOptions, make_plan
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.analysis.plan.together import (
    Wanted,
    energy_together_j,
    fit_together,
    plans_together,
)
from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve

STEP_S = 300.0
CHAT = replica_type("chat/1", 8.0, (300.0, 420.0))
CODE = replica_type("code/2", 5.0, (250.0, 500.0), start_j=40_000.0)


def wanted(*rates: Sequence[float]) -> list[Wanted]:
    return [
        Wanted((kind,), RateCurve(STEP_S, np.array(own), kind.study), 0.0)
        for kind, own in zip((CHAT, CODE), rates, strict=True)
    ]


def options(gpus: int) -> PlanOptions:
    return PlanOptions(gpus=gpus, step_s=STEP_S, dwell_s=0.0)


def least_j(gpus: int, rates: Sequence[Sequence[float]]) -> float:
    """The least energy over every sequence of fleets of both types."""
    kinds = (CHAT, CODE)
    needs = [np.maximum(own, np.maximum(np.roll(own, 1), np.roll(own, -1))) for own in rates]
    fleets = [f for f in itertools.product(range(gpus + 1), repeat=2) if sum(f) <= gpus]
    best = inf
    for path in itertools.product(fleets, repeat=len(rates[0])):
        cost_j = 0.0
        for step, fleet in enumerate(path):
            cost_j += (gpus - sum(fleet)) * 70.0 * STEP_S
            for kind, count, own, need in zip(kinds, fleet, rates, needs, strict=True):
                cost_j += running_j(kind, count, own[step], need[step])
        for before, after in itertools.pairwise(path):
            starts = [max(b - a, 0) for a, b in zip(before, after, strict=True)]
            if sum(before) + sum(starts) > gpus:
                cost_j = inf
            stops = [max(a - b, 0) for a, b in zip(before, after, strict=True)]
            for kind, up, down in zip(kinds, starts, stops, strict=True):
                cost_j += up * kind.start_extra_j + down * kind.drain_j
        best = min(best, cost_j)
    return best


def running_j(kind: ReplicaType, count: int, rate: float, need: float) -> float:
    if count * kind.capacity < need * (1.0 - 1e-9):
        return inf
    if count == 0:
        return 0.0
    return count * float(kind.power_w(np.array([rate / count]))[0]) * STEP_S


LOADS = st.lists(st.sampled_from([0.0, 3.0, 7.0, 9.0]), min_size=3, max_size=3).filter(any)


@settings(max_examples=25, deadline=None)
@given(chat=LOADS, code=LOADS, gpus=st.integers(2, 3))
def test_they_fit_and_none_is_better_where_each_has_its_best(
    chat: list[float], code: list[float], gpus: int
) -> None:
    truth = least_j(gpus, (chat, code))
    try:
        plans = plans_together(wanted(chat, code), options(gpus))
    except UsageError:
        return
    used = sum(plan.blocked_gpus for plan in plans)
    assert (used <= gpus).all()
    found = energy_together_j(plans)
    assert found >= truth * (1.0 - 1e-9)
    alone = [make_plan(w.types, w.curve, options(gpus)) for w in wanted(chat, code)]
    if (sum(plan.blocked_gpus for plan in alone) <= gpus).all():
        assert found == pytest.approx(truth)


def test_what_does_not_fit_beside_each_other_is_made_in_the_order_that_costs_least() -> None:
    """A start of chat is dear, so alone it would keep its two replicas while code needs two."""
    dear = replica_type("chat/1", 8.0, (300.0, 420.0), start_j=1e6)
    chat, code = wanted([9.0, *[3.0] * 7, 9.0], [*[3.0] * 4, 9.0, *[3.0] * 4])
    both = [Wanted((dear,), chat.curve, 0.0), code]
    alone = [make_plan(w.types, w.curve, options(3)) for w in both]
    assert alone[0].running[:, 0].tolist() == [2] * 9
    plans = plans_together(both, options(3))
    assert (sum(plan.blocked_gpus for plan in plans) <= 3).all()
    for plan, own in zip(plans, both, strict=True):
        assert (plan.running[:, 0] * plan.types[0].capacity >= own.curve.rates).all()
    assert energy_together_j(plans) > energy_together_j(alone)
    with pytest.raises(UsageError, match=r"for each task need \d GPUs at 00:"):
        plans_together(wanted([8.0, 9.0, 3.0, 3.0], [3.0, 9.0, 3.0, 3.0]), options(3))


def test_with_all_on_each_task_has_its_part_of_the_gpus() -> None:
    plans = plans_together(wanted([8.0] * 4, [5.0] * 4), options(6))
    assert [plan.all_on.running for plan in plans] == [(3,), (3,)]
    assert fit_together([plan.all_on for plan in plans], plans)
