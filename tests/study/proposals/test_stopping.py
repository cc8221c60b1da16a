"""The stop rule: the search ends once it expects nothing more, or its front stagnates."""

from __future__ import annotations

from tuner.study.proposals.stopping import (
    IDLE_PROPOSALS,
    LEAST_EVALUATIONS,
    stagnation,
    stop_reason,
)


def test_a_search_is_flat_only_after_many_evaluations_without_growth() -> None:
    start = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    dull: list[tuple[float, ...] | None] = [None, (1.0, 1.0)] * LEAST_EVALUATIONS
    assert stagnation([*start, *dull[: LEAST_EVALUATIONS - 1]]) is None
    assert stagnation([*start, *dull[:LEAST_EVALUATIONS]]) == LEAST_EVALUATIONS
    better = (0.0, 0.0)
    assert stagnation([*start, *dull[: LEAST_EVALUATIONS - 1], better]) is None
    # late in a long search the last third counts
    assert stagnation([*start, *dull, *dull, *dull]) == round((3 + 6 * LEAST_EVALUATIONS) / 3)


def test_a_search_that_found_nothing_goes_on() -> None:
    assert stagnation([None] * 200) is None


def test_the_search_stops_when_the_model_expects_nothing_more() -> None:
    grown = [(10.0 - 0.1 * i, 10.0 - 0.1 * i) for i in range(60)]  # each better than the last
    flat = [(1.0, 1.0)] * 200
    small = [None, *[0.2] * 20, *[4e-4] * IDLE_PROPOSALS]
    doubted = [None if gain is None else 1.5e-3 for gain in small]
    found = stop_reason(grown, small, doubted)
    assert found is not None and "0.05 %" in found
    assert stop_reason(grown, small, [None] * len(small)) == found  # of an older store
    assert stop_reason(grown, small[:-1], doubted[:-1]) is None  # one less
    assert stop_reason(grown[:30], small, doubted) is None  # too early to say
    assert stop_reason(flat, [*small, 2e-3], [*doubted, None]) is None  # one promises more
    assert stop_reason(grown, [*small, 4e-4], [*doubted, 3e-3]) is None  # and one in doubt
    told = stop_reason(flat, [None] * 200, [None] * 200)
    assert told is not None and "not grown" in told
    assert stop_reason(grown, [None] * 60, [None] * 60) is None
