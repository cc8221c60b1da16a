import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.window import SteadyWindow, WindowPlan


def test_window_begins_once_as_many_ended_as_are_under_way() -> None:
    window = SteadyWindow(WindowPlan(window_s=10, warmup_limit_s=100))
    window.started(5.0)
    for _ in range(3):
        window.sent(5.0)
    window.finished(6.0)  # one ended, two under way
    window.sent(6.0)
    assert window.window_start_s is None
    window.finished(8.0)  # two ended, two under way
    assert window.window_start_s == 8.0
    assert window.window_end_s == 18.0
    assert window.settled


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


@given(
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=60),
    st.floats(0.1, 50),
    st.floats(0.1, 50),
)
def test_the_window_never_moves_and_always_ends_by_the_limit(
    events: list[tuple[float, bool]], window_s: float, limit_s: float
) -> None:
    window = SteadyWindow(WindowPlan(window_s=window_s, warmup_limit_s=limit_s))
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
            assert window.window_end_s == pytest.approx(start_s + window_s)
