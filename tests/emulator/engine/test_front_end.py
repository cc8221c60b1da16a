"""The API server's queue: every token is sent after it was made, in order, at its pace."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.emulator.engine.step_log import FrontEnd, StepLog

STEPS = st.lists(
    st.tuples(st.floats(0.001, 0.05), st.integers(0, 64), st.integers(1, 5)), min_size=1
)


def filled(log: StepLog, steps: list[tuple[float, int, int]], now_s: float = 0.0) -> float:
    for duration_s, running, count in steps:
        ends_s = now_s + duration_s * np.arange(1, count + 1)
        log.extend(ends_s, ends_s, running, 0, 1000.0)
        now_s = float(ends_s[-1])
    return now_s


@given(STEPS, STEPS, st.floats(0, 0.001))
def test_it_is_a_queue_with_one_server(
    first: list[tuple[float, int, int]], then: list[tuple[float, int, int]], token_s: float
) -> None:
    log = StepLog()
    front_end = FrontEnd(log, token_s)
    now_s = filled(log, first)
    before_s = front_end.times_s
    filled(log, then, now_s)
    found, last_s = front_end.times_s, 0.0
    assert np.array_equal(found[: before_s.size], before_s)
    for sent_s, made_s, running in zip(found, log.ends_s, log.running, strict=True):
        last_s = max(last_s, made_s) + running * token_s
        assert sent_s == pytest.approx(last_s)


def test_without_work_tokens_arrive_when_they_are_made() -> None:
    log = StepLog()
    filled(log, [(0.01, 8, 3), (0.02, 16, 2)])
    assert np.array_equal(FrontEnd(log, 0.0).times_s, log.ends_s)


def test_a_slow_loop_sets_the_pace() -> None:
    log = StepLog()
    filled(log, [(0.01, 100, 50)])
    front_end = FrontEnd(log, 0.0002)  # 20 ms of work in each step of 10 ms
    assert np.diff(front_end.times_s) == pytest.approx(0.02)
    assert front_end.sent_s(49) == pytest.approx(0.01 + 50 * 0.02)
