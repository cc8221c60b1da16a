"""Headroom: within five per cent of the truth, with six measurements, on any queue."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.analysis.deployment.headroom import CLOSE_ENOUGH, MOST_PROBES, Headroom, Probe, next_load
from tuner.evaluation.headroom import find_headroom

Margin = Callable[[float], float]
TOLERANCE = 1e-3  # loads are rounded to four digits


def search(margin: Margin, first: float, *, whole: bool = False) -> tuple[Headroom, list[float]]:
    asked: list[float] = []

    async def measure(load: float) -> float:
        asked.append(load)
        return margin(load)

    return asyncio.run(find_headroom(measure, first, whole=whole)), asked


def require_close(found: Headroom, asked: list[float], truth: float) -> None:
    assert len(asked) <= MOST_PROBES
    assert found.holds is not None, (asked, truth)
    assert truth / (CLOSE_ENOUGH + TOLERANCE) <= found.holds <= truth * (1 + TOLERANCE), asked


def queue_of_one(capacity: float, bound_s: float) -> Margin:
    """M/M/1: the 99th percentile of the time in the system is ln 100 / (capacity - rate)."""
    return lambda rate: max(0.0, bound_s * (capacity - rate) / math.log(100.0))


def batch_server(alone_s: float, each_s: float, tokens: float, bound_s: float, most: int) -> Margin:
    """Continuous batching: a step takes `alone_s` + `each_s` x batch; the batch is rate x life."""

    def margin(rate: float) -> float:
        share = each_s * tokens * rate
        if share >= 1.0:
            return 0.0
        step_s = alone_s / (1.0 - share)
        return 0.0 if rate * tokens * step_s > most else bound_s / step_s

    return margin


def crossing_of(margin: Margin, most: float) -> float:
    low, high = 0.0, most
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if margin(middle) >= 1.0 else (low, middle)
    return low


capacities = st.floats(0.05, 500.0)


@settings(max_examples=400)
@given(capacities, st.floats(0.05, 0.95), st.floats(0.25, 1.5))
def test_a_queue_of_one(capacity: float, at: float, of_truth: float) -> None:
    bound_s = math.log(100.0) / ((1.0 - at) * capacity)  # the SLO is met up to at x capacity
    margin = queue_of_one(capacity, bound_s)
    truth = at * capacity
    studied = truth * of_truth
    found, asked = search(margin, studied)
    require_close(found, asked, truth)


@given(
    st.floats(2e-3, 2e-2),
    st.floats(1e-5, 1e-3),
    st.integers(20, 2000),
    st.floats(1.05, 8.0),
    st.floats(0.3, 1.6),
)
def test_a_server_of_batches(
    alone_s: float, each_s: float, tokens: int, times: float, of_truth: float
) -> None:
    margin = batch_server(alone_s, each_s, tokens, alone_s * times, most=10**9)
    truth = crossing_of(margin, 2.0 / (each_s * tokens))
    studied = truth * of_truth
    found, asked = search(margin, studied)
    require_close(found, asked, truth)


@given(st.floats(1.2, 3.0), st.integers(8, 1024), st.floats(0.5, 1.0))
def test_where_a_full_batch_ends_it_no_line_leads_there_and_the_bracket_still_holds_it(
    times: float, most: int, of_truth: float
) -> None:
    margin = batch_server(0.01, 1e-5, 200, 0.01 * times, most)
    truth = crossing_of(margin, 1000.0)
    found, asked = search(margin, truth * of_truth)
    assert len(asked) <= MOST_PROBES
    assert found.holds is not None and found.misses is not None
    assert found.holds <= truth <= found.misses <= 1.15 * found.holds, asked


@given(st.floats(1e-3, 2e-2), st.floats(1e-5, 1e-3), st.floats(1.2, 20.0), st.floats(0.2, 3.0))
def test_a_closed_loop_has_whole_numbers(
    alone_s: float, each_s: float, times: float, of_truth: float
) -> None:
    bound_s = alone_s * times + each_s

    def margin(concurrency: float) -> float:
        assert concurrency == int(concurrency) and concurrency >= 1
        return bound_s / (alone_s + each_s * concurrency)

    about = round((bound_s - alone_s) / each_s)
    truth = max(n for n in range(max(about - 2, 1), about + 3) if margin(n) >= 1.0)
    studied = max(1.0, round(truth * of_truth))
    found, asked = search(margin, studied, whole=True)
    assert len(asked) <= MOST_PROBES
    assert found.holds is not None
    assert found.holds <= truth and (
        truth - found.holds < 1 or truth <= found.holds * CLOSE_ENOUGH * (1 + TOLERANCE)
    ), (asked, truth)


@given(st.lists(st.floats(0.0, 3.0), min_size=MOST_PROBES, max_size=MOST_PROBES), st.booleans())
def test_no_answers_of_a_server_break_it(margins: list[float], whole: bool) -> None:
    left = iter(margins)
    found, asked = search(lambda _: next(left), 4.0, whole=whole)
    assert len(asked) == len(set(asked)) <= MOST_PROBES
    assert all(math.isfinite(load) and load > 0.0 for load in asked)
    if found.holds is not None and found.misses is not None:
        assert found.holds < found.misses


@given(st.lists(st.floats(0.0, 3.0), max_size=MOST_PROBES))
def test_a_killed_search_goes_on_where_it_stopped(margins: list[float]) -> None:
    probes: list[Probe] = []
    for margin in margins:
        load = next_load(probes, 4.0)
        if load is None:
            break
        assert load == next_load(list(probes), 4.0)
        probes.append(Probe(load, margin))


def test_a_load_that_is_never_missed_has_no_upper_end() -> None:
    found, asked = search(lambda _: 3.0, 4.0)
    assert len(asked) == MOST_PROBES
    assert found.holds == max(asked) and found.misses is None


def test_one_that_never_holds_is_said_so() -> None:
    found, asked = search(lambda _: 0.0, 4.0)
    assert len(asked) == MOST_PROBES and found.holds is None and found.misses == min(asked)
