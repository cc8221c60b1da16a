"""Ending a load early: clear misses and queues that only grow, and what looks like them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from helpers.early_ends import NEVER, PLAN, good, run_once
from helpers.virtual_loads import CASES, metrics_of, replay, simulate

from tuner.configuration import Configuration
from tuner.measurement.early_stop import Backlog, first_missed
from tuner.measurement.reduce import reduce_run
from tuner.measurement.requests.latencies import at_least_ms
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.measurement.window_statistics import WindowStatistics
from tuner.records import EarlyEnd, Failure, FailureKind, InFlight, Load, Measurement, RawRun
from tuner.slo import Slo, meets_all

TTFT = (Slo("p99_ttft_ms", 500.0),)
TPOT = (Slo("p95_tpot_ms", 20.0),)
NOBODY = InFlight.of([])


def told(times_s: Iterator[float] | list[float], ttft_s: float, gap_s: float) -> WindowStatistics:
    """Answers of 11 tokens that end at these times."""
    seen = WindowStatistics()
    for end_s in times_s:
        first_s = end_s - 10 * gap_s
        seen.answered(end_s, first_s - ttft_s, first_s, 11)
    return seen


def test_what_is_late_everywhere_is_missed_and_what_is_in_time_is_not() -> None:
    ends_s = np.arange(100.2, 110.0, 0.2).tolist()
    late = first_missed(TPOT, told(ends_s, 0.1, 0.03), NOBODY, 100.0, 110.0)
    assert late is not None
    assert late.missed == "p95_tpot_ms<=20"
    assert "49 of 49 requests" in late.reason and "10 s" in late.reason
    assert first_missed(TPOT, told(ends_s, 0.1, 0.019), NOBODY, 100.0, 110.0) is None
    assert first_missed(TTFT, told(ends_s, 0.1, 0.03), NOBODY, 100.0, 110.0) is None


def test_it_takes_five_seconds_and_twenty_requests() -> None:
    ends_s = np.arange(100.2, 110.0, 0.2).tolist()
    assert first_missed(TPOT, told(ends_s, 0.1, 0.03), NOBODY, 105.5, 110.0) is None
    assert first_missed(TPOT, told(ends_s[::3], 0.1, 0.03), NOBODY, 100.0, 110.0) is None


def test_one_burst_of_late_requests_is_no_miss() -> None:
    """All late ones, a quarter of the requests, ended within two of the ten seconds."""
    seen = told(np.arange(100.2, 110.0, 0.2).tolist(), 0.1, 0.01)
    for end_s in np.linspace(104.0, 106.0, 16):
        seen.answered(float(end_s), float(end_s) - 2.0, float(end_s) - 0.5, 11)
    assert first_missed(TPOT, seen, NOBODY, 100.0, 110.0) is None


def test_requests_that_wait_too_long_are_counted_before_they_are_answered() -> None:
    seen = told(np.arange(100.5, 106.0, 1.0).tolist(), 0.1, 0.01)
    waiting = InFlight.of((s, np.nan, 11) for s in np.arange(99.6, 108.0, 0.05).tolist())
    found = first_missed(TTFT, seen, waiting, 100.0, 108.5)
    assert found is not None and found.missed == "p99_ttft_ms<=500"
    fresh = InFlight.of((s, np.nan, 11) for s in np.linspace(108.1, 108.5, 200).tolist())
    assert first_missed(TTFT, seen, fresh, 100.0, 108.5) is None


def test_those_under_way_that_may_still_be_in_time_count_against_a_miss() -> None:
    """A quarter is late, much more than 5 %, unless the 400 others under way end in time."""
    ends_s = np.arange(100.2, 109.0, 0.2).tolist()
    seen = told(ends_s[::3], 0.1, 0.03)
    for end_s in ends_s:
        seen.answered(end_s, end_s - 0.3, end_s - 0.1, 11)
    assert first_missed((Slo("p95_tpot_ms", 20.0),), seen, NOBODY, 100.0, 110.0) is not None
    others = InFlight.of((109.0, 109.95, 11) for _ in range(400))
    assert first_missed((Slo("p95_tpot_ms", 20.0),), seen, others, 100.0, 110.0) is None


def test_what_is_under_way_is_at_least_so_late() -> None:
    under_way = InFlight.of([(10.0, np.nan, 5), (10.0, 11.0, 5), (10.0, 11.0, 1)])
    assert at_least_ms("ttft_ms", under_way, 13.0) == pytest.approx([3000, 1000, 1000])
    assert at_least_ms("e2el_ms", under_way, 13.0) == pytest.approx([3000, 3000, 3000])
    tpot_ms = at_least_ms("tpot_ms", under_way, 13.0)
    assert tpot_ms[1] == pytest.approx(500)
    assert np.isnan(tpot_ms[[0, 2]]).all()


def looked_at(
    sent_s: np.ndarray, waits_s: float, slos: tuple[Slo, ...], until_s: float, served_per_s: float
) -> EarlyEnd | None:
    """First come, first served, each answered `1 / served_per_s` after the one before."""
    starts_s = np.empty(sent_s.size)
    free_s = 0.0
    for i, at_s in enumerate(sent_s):
        starts_s[i] = free_s = max(free_s, float(at_s)) + 1.0 / served_per_s
    backlog, found = Backlog(0.0), None
    for now_s in np.geomspace(1.0, until_s, 80):
        waiting = sent_s[(sent_s <= now_s) & (starts_s + waits_s > now_s)]
        under_way = InFlight.of((float(s), np.nan, 10) for s in waiting)
        found = found or backlog.outgrown(slos, sent_s[sent_s <= now_s], under_way, float(now_s))
    return found


def arrivals(seed: int, rate: float, shape: float, until_s: float) -> np.ndarray:
    """Gamma gaps: shape 1 is Poisson, less is bursts."""
    rng = np.random.default_rng(seed)
    gaps_s = rng.gamma(shape, 1 / shape / rate, int(2 * rate * until_s))
    times_s = np.cumsum(gaps_s)
    return times_s[times_s < until_s]


@pytest.mark.parametrize(("shape", "served_per_s"), [(1.0, 7.0), (0.2, 4.0)])
def test_a_queue_that_only_grows_is_seen_in_time(shape: float, served_per_s: float) -> None:
    for seed in range(10):
        sent_s = arrivals(seed, 10.0, shape, 120.0)
        found = looked_at(sent_s, 0.05, TTFT, 120.0, served_per_s)
        assert found is not None and found.missed is None
        assert "does not keep up" in found.reason


@pytest.mark.parametrize("shape", [1.0, 0.2])
@pytest.mark.parametrize("load", [0.5, 0.9, 1.0])
def test_a_queue_that_wanders_is_no_growth(shape: float, load: float) -> None:
    """Up to a load that is just kept up with."""
    alarms = sum(
        looked_at(arrivals(seed, 10.0 * load, shape, 120.0), 0.05, TTFT, 120.0, 10.0) is not None
        for seed in range(15)
    )
    assert alarms <= (1 if load == 1.0 else 0)


def test_a_warm_up_is_no_growth() -> None:
    """A thousand requests come under way in a slow start, and none waits for long."""
    sent_s = np.linspace(0.0, 100.0, 1000)
    assert looked_at(sent_s, 0.3, TTFT, 100.0, served_per_s=100.0) is None


def test_a_growing_queue_of_those_who_do_not_yet_wait_too_long_is_waited_for() -> None:
    sent_s = arrivals(0, 10.0, 1.0, 30.0)
    assert looked_at(sent_s, 0.0, (Slo("p99_ttft_ms", 60_000.0),), 30.0, 6.0) is None


@pytest.fixture(scope="module")
def chat() -> RawRun:
    return simulate(CASES[1], 5, 40.0, 130.0)


@pytest.mark.parametrize(
    "metric", ["p50_tpot_ms", "p99_tpot_ms", "p95_ttft_ms", "p99_ttft_ms", "p99_e2el_ms"]
)
def test_slos_that_the_window_meets_never_end_it(chat: RawRun, metric: str) -> None:
    shown = metrics_of(chat)[metric]
    for share in (1.001, 1.02, 1.1):
        watch = SteadyWindow(replace(PLAN, slos=(Slo(metric, share * shown),)))
        replay(chat, watch)
        assert watch.ended_early is None
    watch = SteadyWindow(replace(PLAN, slos=(Slo(metric, 0.4 * shown),)))
    replay(chat, watch)
    assert watch.ended_early is not None
    assert watch.window_start_s is not None and watch.window_end_s is not None
    assert watch.window_end_s - watch.window_start_s >= 5.0


def test_an_early_end_keeps_what_is_known_and_is_never_good() -> None:
    slos = (Slo("p99_ttft_ms", 45.0), Slo("p99_tpot_ms", 9000.0))
    ran = run_once(Configuration(), Load(concurrency=64), replace(PLAN, slos=slos), 3)
    assert ran.ended_early is not None and ran.ended_early.missed == "p99_ttft_ms<=45"
    result = reduce_run(ran.run, {})
    assert isinstance(result, Measurement)
    assert result.ended_early == ran.ended_early.reason
    assert result.metrics["p99_ttft_ms"] > 45.0
    assert not meets_all(result.metrics, slos)
    assert result.metrics["energy_per_output_token_j"] > 0
    whole = run_once(Configuration(), Load(concurrency=64), NEVER, 3)
    assert whole.ended_early is None
    assert not good(whole.run, slos)
    assert ran.seconds < 0.5 * whole.seconds


def test_an_over_saturated_load_is_the_configurations_fault() -> None:
    narrow = Configuration(flags={"max_num_seqs": 8})
    ran = run_once(narrow, Load(request_rate=8.0), replace(PLAN, slos=TTFT), 1)
    result = reduce_run(ran.run, {})
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.CONFIGURATION
    assert "does not keep up with the offered load" in result.reason
    assert ran.seconds < 60.0


def test_without_an_slo_and_without_a_queue_nothing_ends_early(chat: RawRun) -> None:
    watch = SteadyWindow(WindowPlan(window_s=60.0))
    replay(chat, watch)
    assert watch.ended_early is None
