"""A simple engine shows what a stretch of requests does to the time between tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.load.heaviness.reference_server import Arrival, tpots_s

STEP_S = 0.01
REQUESTS = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.integers(1, 5_000), st.integers(1, 300)), max_size=30
)


def arrivals(rows: list[tuple[float, int, int]]) -> list[Arrival]:
    return [Arrival(*row) for row in sorted(rows)]


def test_an_answer_alone_has_a_token_a_step() -> None:
    assert tpots_s([Arrival(0.5, 100, 51)], STEP_S, 0.0, 10.0) == [
        pytest.approx(STEP_S * (1.0 + 1.0 / 256))
    ]


def test_a_prompt_holds_up_the_answers_that_it_meets() -> None:
    answer = Arrival(0.0, 1, 101)
    alone, met, missed = (
        tpots_s([answer, *others], STEP_S, 0.0, 10.0)[0]
        for others in ([], [Arrival(0.5, 2_560, 1)], [Arrival(5.0, 2_560, 1)])
    )
    assert missed == alone
    assert met == pytest.approx(alone + 10.0 * STEP_S / 100, rel=0.02)  # ten empty steps longer


@given(REQUESTS, st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_a_slower_server_under_as_much_slower_a_load_is_as_much_slower(
    rows: list[tuple[float, int, int]], times: float
) -> None:
    found = tpots_s(arrivals(rows), STEP_S, -1.0, 1e4)
    slower = [Arrival(a.at_s * times, a.prompt_tokens, a.output_tokens) for a in arrivals(rows)]
    assert len(found) == sum(a.output_tokens > 1 for a in slower)
    assert tpots_s(slower, STEP_S * times, -1.0, 1e5) == [value * times for value in found]


@given(REQUESTS, st.floats(0.0, 30.0))
def test_an_answer_counts_in_the_window_that_it_ends_in(
    rows: list[tuple[float, int, int]], cut_s: float
) -> None:
    """What arrives later changes nothing before."""
    asked = arrivals(rows)
    whole = tpots_s(asked, STEP_S, -1.0, 1e4)
    first, rest = tpots_s(asked, STEP_S, -1.0, cut_s), tpots_s(asked, STEP_S, cut_s, 1e4)
    assert first == whole[: len(first)]
    assert len(first) + len(rest) == len(whole)
