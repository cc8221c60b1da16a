import time

import numpy as np
import pytest
from helpers.virtual_loads import CASES, cut, metrics_of, replay, simulate
from hypothesis import given
from hypothesis import strategies as st

from tuner.measurement.intervals import intervals
from tuner.measurement.precision import Precision
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.records import EarlyEnd, InFlight, RawRun, SteadyWatch

SHORT = CASES[0]


def closed_loop(
    window: SteadyWindow, concurrency: int, lifetime_s: float, until_s: float, requests: int = 10**9
) -> None:
    """Offer requests that all live equally long, one after the other in `concurrency` clients."""
    window.started(0.0)
    ends_s = [lifetime_s * (i + 1) / concurrency for i in range(concurrency)]
    for _ in range(concurrency):
        window.sent(0.0)
    sent = concurrency
    while ends_s and ends_s[0] < until_s:
        now_s = ends_s.pop(0)
        end_s = window.window_end_s
        if end_s is not None and now_s >= end_s:
            return
        window.finished(now_s)
        if sent < requests:
            sent += 1
            window.sent(now_s)
            ends_s.append(now_s + lifetime_s)


def test_it_is_a_steady_watch() -> None:
    watch: SteadyWatch = SteadyWindow(WindowPlan())
    assert watch.window_start_s is None
    assert watch.window_end_s is None


def test_window_begins_once_the_requests_under_way_are_turned_over() -> None:
    window = SteadyWindow(WindowPlan(window_s=10, warmup_limit_s=100))
    closed_loop(window, concurrency=8, lifetime_s=2.0, until_s=2.6)
    assert window.window_start_s is None  # 10 have ended, 7 are under way
    window = SteadyWindow(WindowPlan(window_s=10, warmup_limit_s=100))
    closed_loop(window, concurrency=8, lifetime_s=2.0, until_s=30.0)
    assert window.settled
    assert window.window_start_s == pytest.approx(2.75, abs=0.3)
    assert window.window_end_s == pytest.approx(window.window_start_s + 10.0)


def test_a_load_that_still_changes_is_not_settled() -> None:
    """The power falls for 20 s: the window begins where it has stopped to."""
    window = SteadyWindow(WindowPlan(window_s=60, warmup_limit_s=100))
    window.started(0.0)
    window.sent(0.0)
    rng, energy_j, tokens = np.random.default_rng(0), 0.0, 0.0
    for tick in range(1, 800):
        now_s = tick / 10
        energy_j += 10 * (1 + max(0.0, 1 - now_s / 20)) * (1 + 0.02 * rng.standard_normal())
        tokens += 20 * (1 + 0.02 * rng.standard_normal())
        window.sampled(now_s, energy_j, tokens)
        if tick % 3 == 0:
            window.finished(now_s)
            window.sent(now_s)
    assert window.settled
    assert window.window_start_s is not None
    assert 15.0 <= window.window_start_s <= 30.0


def test_an_over_saturated_load_begins_its_window_at_the_limit() -> None:
    window = SteadyWindow(WindowPlan(window_s=10, warmup_limit_s=20))
    window.started(0.0)
    for second in range(40):
        window.sent(float(second))
    assert window.window_start_s == 20.0
    assert not window.settled


def test_a_load_without_events_still_ends() -> None:
    window = SteadyWindow(WindowPlan(window_s=10, warmup_limit_s=20))
    assert window.window_end_s is None
    window.started(100.0)
    assert window.window_end_s == 130.0
    precision = Precision(min_window_s=5, max_window_s=40)
    window = SteadyWindow(WindowPlan(window_s=10, warmup_limit_s=20, precision=precision))
    window.started(100.0)
    assert window.window_end_s == 160.0


def test_the_window_of_a_server_that_says_nothing_began_at_the_limit() -> None:
    watch = SteadyWindow(WindowPlan(window_s=10.0, warmup_limit_s=5.0))
    watch.started(100.0)
    watch.sent(100.0)
    assert (watch.window_start_s, watch.window_end_s) == (None, 115.0)
    watch.over(104.0)
    assert watch.window_start_s is None
    watch.over(115.0)
    assert (watch.window_start_s, watch.window_end_s) == (105.0, 115.0)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=60),
    st.floats(0.1, 50),
    st.floats(0.1, 50),
    st.booleans(),
)
def test_the_window_never_moves_and_always_ends_by_the_limit(
    events: list[tuple[float, bool]], window_s: float, limit_s: float, adaptive: bool
) -> None:
    precision = Precision(min_window_s=window_s / 4, max_window_s=window_s) if adaptive else None
    plan = WindowPlan(window_s=window_s, warmup_limit_s=limit_s, precision=precision)
    window = SteadyWindow(plan)
    window.started(0.0)
    now_s, under_way, seen = 0.0, 0, None
    for gap_s, ends in events:
        now_s += gap_s
        if ends and under_way:
            window.finished(now_s)
            under_way -= 1
        else:
            window.sent(now_s)
            under_way += 1
        start_s = window.window_start_s
        if seen is not None:
            assert start_s == seen
        seen = start_s
        assert window.window_end_s is not None
        assert window.window_end_s <= limit_s + window_s + 1e-9
        if start_s is not None:
            assert start_s <= now_s
            assert start_s <= window.window_end_s


def test_a_window_ends_where_the_drain_begins() -> None:
    window = SteadyWindow(WindowPlan(window_s=1000, warmup_limit_s=100))
    closed_loop(window, concurrency=16, lifetime_s=2.0, until_s=100.0, requests=160)
    assert window.window_end_s == pytest.approx(18.0)  # 144 requests replaced another, 8 a second


def test_a_stall_is_no_drain() -> None:
    """Nothing ends for 20 s, then all at once: the worst moment of a server must stay inside."""
    window = SteadyWindow(WindowPlan(window_s=60, warmup_limit_s=100))
    closed_loop(window, concurrency=16, lifetime_s=2.0, until_s=10.0)
    for _ in range(16):
        window.finished(30.0)
    for _ in range(16):
        window.sent(30.001)
    assert window.window_start_s is not None
    assert window.window_end_s == window.window_start_s + 60


def test_a_driver_that_knows_its_requests_are_used_up_says_so() -> None:
    window = SteadyWindow(WindowPlan(window_s=1000, warmup_limit_s=100))
    closed_loop(window, concurrency=4, lifetime_s=1.0, until_s=20.0)
    window.exhausted(20.0)
    assert window.window_end_s == 20.0
    window.exhausted(25.0)
    assert window.window_end_s == 20.0


def test_a_quiet_open_load_does_not_drain() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        sent_s = np.cumsum(rng.exponential(0.2, 2000))
        ends_s = sent_s + rng.exponential(1.0, 2000)
        window = SteadyWindow(WindowPlan(window_s=1000, warmup_limit_s=100))
        window.started(0.0)
        kinds = [(t, window.sent) for t in sent_s] + [(t, window.finished) for t in ends_s]
        for now_s, tell in sorted(kinds, key=lambda event: event[0]):
            if now_s < sent_s[-1]:
                tell(float(now_s))
        assert window.window_start_s is not None
        assert window.window_end_s == window.window_start_s + 1000


@pytest.fixture(scope="module")
def short_run() -> RawRun:
    return simulate(SHORT, 11, 5.0, 130.0)


def test_an_adaptive_window_ends_once_it_is_precise(short_run: RawRun) -> None:
    lengths_s = []
    for share in (0.03, 0.015):
        precision = Precision(min_window_s=10, max_window_s=120, energy_share=share)
        window = SteadyWindow(WindowPlan(warmup_limit_s=60, precision=precision))
        replay(short_run, window)
        assert window.precise
        start_s, end_s = window.window_start_s, window.window_end_s
        assert start_s is not None and end_s is not None
        seen = cut(short_run, start_s, end_s)
        found = intervals(seen, {})["energy_per_output_token_j"]
        value = metrics_of(seen)["energy_per_output_token_j"]
        assert found.half_width <= 1.1 * share * value  # the watch's tokens come in 0.1 s steps
        lengths_s.append(end_s - start_s)
    assert lengths_s[0] < lengths_s[1] < 120.0  # earlier than it would end anyway


def test_one_lucky_look_does_not_end_a_window() -> None:
    window = SteadyWindow(
        WindowPlan(warmup_limit_s=60, precision=Precision(min_window_s=20, max_window_s=100))
    )
    window.started(0.0)
    for tick in range(1000):
        now_s = tick / 10  # the same power and rate throughout: every look would do
        window.sampled(now_s, 500 * now_s, 5000 * now_s)
        window.sent(now_s)
        window.finished(now_s)
    assert window.precise
    assert window.window_start_s is not None and window.window_end_s is not None
    assert 20.5 <= window.window_end_s - window.window_start_s <= 23.0


def test_a_percentile_makes_the_window_longer(short_run: RawRun) -> None:
    lengths_s = []
    for percentiles in ((), ("p95_tpot_ms",), ("p99_ttft_ms",)):
        precision = Precision(
            min_window_s=5, max_window_s=100, energy_share=0.04, percentile_share=0.03,
            percentiles=percentiles,
        )  # fmt: skip
        window = SteadyWindow(WindowPlan(warmup_limit_s=60, precision=precision))
        replay(short_run, window)
        assert window.window_start_s is not None and window.window_end_s is not None
        lengths_s.append(window.window_end_s - window.window_start_s)
    assert lengths_s[0] < lengths_s[1] < lengths_s[2] == pytest.approx(100.0)
    assert window.precise is False


def test_without_energy_the_rate_of_requests_stands_for_it(short_run: RawRun) -> None:
    precision = Precision(min_window_s=5, max_window_s=120, energy_share=0.1)
    window = SteadyWindow(WindowPlan(warmup_limit_s=60, precision=precision))
    replay(short_run, window, seen=False)
    assert window.precise
    assert window.settled


def test_impossible_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="min_window_s"):
        Precision(min_window_s=50, max_window_s=40)


def test_an_event_costs_next_to_nothing() -> None:
    """200 requests per second for 5 minutes, with samples and latencies."""
    precision = Precision(max_window_s=290, energy_share=1e-9, percentiles=("p99_tpot_ms",))
    window = SteadyWindow(WindowPlan(warmup_limit_s=30, precision=precision))
    began_s = time.process_time()
    window.started(0.0)
    rng = np.random.default_rng(0)
    for i, noise in enumerate(rng.standard_normal(60_000)):
        now_s = (i + 1) / 200
        window.sent(now_s - 0.001)
        if i % 20 == 0:
            window.sampled(now_s, 500 * now_s, 5000 * now_s + 10 * noise)
        if i >= 100:
            window.answered(now_s, now_s - 0.5, now_s - 0.4 + 0.01 * noise, 20)
            window.finished(now_s)
    assert window.precise is not True
    assert (time.process_time() - began_s) / 120_000 < 20e-6


def test_what_began_unsettled_is_told_unless_the_load_was_ended_early() -> None:
    window = SteadyWindow(WindowPlan(window_s=10, warmup_limit_s=20))
    window.started(0.0)
    for second in range(40):
        window.sent(float(second))
    assert window.warnings == ("the load had not settled when the window began",)
    window.ended_early = EarlyEnd("it does not keep up with the offered load", None)
    assert window.warnings == ()


def test_what_comes_after_the_end_changes_nothing() -> None:
    """The load goes on until the end has been sampled; then it may run dry, or end early."""
    window = SteadyWindow(WindowPlan(window_s=10, warmup_limit_s=20))
    closed_loop(window, concurrency=8, lifetime_s=2.0, until_s=100.0)
    end_s = window.window_end_s
    assert end_s is not None
    window.exhausted(end_s + 0.1)
    assert window.window_end_s == end_s
    hopeless = InFlight.of((0.0, float("nan"), 10) for _ in range(1000))
    window.set_in_flight_source(lambda: hopeless)
    for i in range(1000):
        window.sent(end_s + 0.2 + i * 1e-3)
    assert (window.window_end_s, window.ended_early) == (end_s, None)
