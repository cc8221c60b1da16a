"""A fleet of emulated replicas: every request has one fate, and routers do what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.configuration import Configuration
from tuner.emulator.fleet.fleet_run import FleetResult, FleetRun, ReplicaKind, Stretch
from tuner.emulator.fleet.routing import Replica, Routing, consolidated, least_busy, router_of
from tuner.load.day.rate_curve import RateCurve
from tuner.load.workload import load_workload
from tuner.records import Request

LENGTH_S = 40.0


def simulated(
    model: ModelShape,
    gpu: Gpu,
    running: Sequence[int],
    rate: float = 2.0,
    routing: Routing = Routing.LEAST_BUSY,
) -> FleetResult:
    """Stretches of the same length with so many replicas each."""
    curve = RateCurve(LENGTH_S, np.full(len(running), rate), "made up")
    stretches = [
        Stretch(i, i * LENGTH_S, LENGTH_S, 10.0, (count,)) for i, count in enumerate(running)
    ]
    kind = ReplicaKind(Configuration(), max(1, *running), 8.0, 40)
    sample = [request(tokens) for tokens in (100, 500, 2000)]
    run = FleetRun(model, gpu, [kind], router_of(routing, sample), seed=3)
    arrivals = [
        ((at_s, 0) for at_s in curve.arrivals_s(s.start_s, s.start_s + LENGTH_S, 5))
        for s in stretches
    ]
    return run.run(stretches, arrivals, [((r,) for r in load_workload("smoke").requests())])


def request(prompt: int, answer: int = 10) -> Request:
    return Request(0, 0.0, np.zeros(prompt, dtype=np.int32), answer)


def test_every_request_has_one_fate(llama: ModelShape, h100: Gpu) -> None:
    result = simulated(llama, h100, [2, 1, 0, 2])
    curve = RateCurve(LENGTH_S, np.full(4, 2.0), "made up")
    for number in range(4):
        own = [a for a in result.answered if a.stretch == number]
        came = list(curve.arrivals_s(number * LENGTH_S, (number + 1) * LENGTH_S, 5))
        assert len(own) == len(came)
        assert all((a.ttft_ms is None) == (number == 2) for a in own)
    served = [a for a in result.answered if a.ttft_ms is not None]
    assert all(0.0 < (a.ttft_ms or 0.0) <= (a.e2el_ms or 0.0) for a in served)


def test_more_replicas_draw_more_power_for_the_same_load(llama: ModelShape, h100: Gpu) -> None:
    few, many = simulated(llama, h100, [1, 3]).power_w
    assert h100.loaded_idle_w < few < many


def test_consolidation_leaves_replicas_idle(llama: ModelShape, h100: Gpu) -> None:
    even = simulated(llama, h100, [3], 30.0).power_w[0]
    filled = simulated(llama, h100, [3], 30.0, Routing.CONSOLIDATE).power_w[0]
    assert filled < 0.9 * even


REPLICAS = st.lists(
    st.builds(
        Replica,
        place=st.integers(0, 0),
        load=st.integers(0, 50),
        capacity=st.floats(1.0, 20.0),
        limit=st.integers(1, 40),
    ),
    min_size=1,
    max_size=6,
).map(lambda own: [Replica(i, r.load, r.capacity, r.limit) for i, r in enumerate(own)])


@given(replicas=REPLICAS, prompt=st.integers(1, 5000))
def test_routers_choose_a_running_replica(replicas: list[Replica], prompt: int) -> None:
    for routing in Routing:
        router = router_of(routing, [request(tokens, tokens) for tokens in (10, 100, 1000)])
        assert router(replicas, request(prompt)) in {r.place for r in replicas}
    by_place = {r.place: r for r in replicas}
    busy = by_place[least_busy(replicas, request(prompt))]
    assert all(busy.load / busy.capacity <= r.load / r.capacity for r in replicas)
    first = by_place[consolidated(replicas, request(prompt))]
    open_ = [r for r in replicas if r.load < r.limit]
    assert first is (open_[0] if open_ else busy)


@pytest.mark.parametrize("routing", [Routing.BY_LENGTH, Routing.BY_ANSWER])
def test_by_length_gives_each_replica_as_many_tokens(routing: Routing) -> None:
    lengths = np.random.default_rng(1).lognormal(6.0, 1.0, 2000).astype(int) + 1

    def of(length: int) -> Request:
        return request(length) if routing is Routing.BY_LENGTH else request(7, length)

    router = router_of(routing, [of(int(length)) for length in lengths])
    replicas = [Replica(i, 0, 8.0, 40) for i in range(4)]
    tokens = np.zeros(4)
    for length in lengths:
        tokens[router(replicas, of(int(length)))] += length
    assert tokens / tokens.sum() == pytest.approx(np.full(4, 0.25), abs=0.02)
    assert router(replicas, of(1)) == 0 and router(replicas, of(10**6)) == 3


def test_a_request_takes_the_form_of_its_replica(llama: ModelShape, h100: Gpu) -> None:
    """Where replicas think more, the same question has a longer answer there."""
    kinds = [ReplicaKind(Configuration(), 1, 8.0, 40, form) for form in (0, 1)]
    router = router_of(Routing.ROUND_ROBIN, [request(50)])
    stretch = Stretch(0, 0.0, LENGTH_S, 10.0, (1, 1))
    times_s = ((float(at_s), 0) for at_s in range(20))
    forms = ((request(50, 20), request(50, 200)) for _ in range(20))
    bounds_ms = [(1e-3, 1e6)]
    run = FleetRun(llama, h100, kinds, router, seed=3, gap_bounds_ms=bounds_ms)
    answered = run.run([stretch], [times_s], [forms]).answered
    assert sorted(one.gaps for one in answered) == [19] * 10 + [199] * 10
    assert all(one.late_gaps == (one.gaps, 0) for one in answered)
