"""The early question: it is asked of a mistake, and not of a study that makes sense."""

from __future__ import annotations

import pytest
from helpers.records import measured, trial_row
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.baseline_doubts import HOPELESS, doubts, little_room, reach_of
from tuner.metrics import METRICS, Direction
from tuner.records import Failure, FailureKind
from tuner.slo import Slo

values = st.floats(1e-3, 1e6)
latencies = st.sampled_from([n for n in METRICS if n.endswith("_ms")])
uppers = st.sampled_from([n for n, m in METRICS.items() if m.better is Direction.MIN])
lowers = st.sampled_from([n for n, m in METRICS.items() if m.better is Direction.MAX])


def asked(*slos: tuple[str, float, float]) -> list[str]:
    """Return the doubts of a default with (metric, its value, the bound) each."""
    baseline = trial_row(0, measured({name: value for name, value, _ in slos}))
    return doubts(baseline, [Slo(name, bound) for name, _, bound in slos])


@given(uppers, values, st.floats(0.2, 9.0))
def test_a_bound_near_the_default_is_never_asked_about(
    name: str, value: float, times: float
) -> None:
    assert asked((name, value, value * times)) == []


@given(uppers, values, st.floats(1.01 * HOPELESS, 1e6))
def test_an_upper_bound_missed_ten_times_is_asked_about(
    name: str, value: float, times: float
) -> None:
    (sentence,) = asked((name, value, value / times))
    assert name in sentence and "by far" in sentence


@given(lowers, values, st.floats(1.01 * HOPELESS, 1e6))
def test_a_lower_bound_missed_ten_times_is_asked_about(
    name: str, value: float, times: float
) -> None:
    assert len(asked((name, value, value * times))) == 1


@given(uppers, values, st.floats(1.0, 1e6))
def test_a_wide_bound_is_asked_about_beyond_what_a_study_reaches(
    name: str, value: float, times: float
) -> None:
    bound = value * times
    beyond = bound / value > reach_of(Slo(name, bound)) * (1 + 1e-9)
    within = bound / value < reach_of(Slo(name, bound)) * (1 - 1e-9)
    found = asked((name, value, bound))
    assert not (beyond and found == [])
    assert not (within and found != [])


@given(latencies, values, st.floats(1e4, 1e6), values, st.floats(0.2, 9.0))
def test_a_wide_bound_beside_one_that_may_bind_is_no_mistake(
    name: str, value: float, wide: float, other: float, times: float
) -> None:
    if name != "p50_itl_ms":
        pair = ((name, value, value * wide), ("p50_itl_ms", other, other * times))
        assert asked(*pair) == []


@given(latencies, st.floats(5.0, 100.0), st.floats(0.5, 5.0))
def test_seconds_for_milliseconds_are_named(name: str, value: float, times: float) -> None:
    bound_s = value * times / 1e3
    (sentence,) = asked((name, value, bound_s))
    assert f"did you mean {bound_s * 1e3:g}?" in sentence


def test_a_default_that_does_not_keep_up_is_asked_about() -> None:
    slow = Failure(FailureKind.CONFIGURATION, "it does not keep up with the offered load: of 9")
    (sentence,) = doubts(trial_row(0, slow), [Slo("p99_tpot_ms", 25.0)])
    assert "does not keep up" in sentence and "--request-rate 0.7x" in sentence


@pytest.mark.parametrize("kind", [FailureKind.INFRASTRUCTURE, FailureKind.UNSTABLE])
def test_a_fault_of_the_machine_says_nothing_about_the_request(kind: FailureKind) -> None:
    assert doubts(trial_row(0, Failure(kind, "a lost GPU")), [Slo("p99_tpot_ms", 25.0)]) == []


def test_without_an_slo_there_is_nothing_to_ask() -> None:
    assert doubts(trial_row(0, measured({"p99_tpot_ms": 10.0})), []) == []


@pytest.mark.parametrize(("value", "says"), [(16.0, "misses"), (14.0, "is near"), (12.0, None)])
def test_a_default_with_little_room_is_told_early(value: float, says: str | None) -> None:
    baseline = trial_row(0, measured({"p99_tpot_ms": value}))
    found = little_room(baseline, [Slo("p99_tpot_ms", 15.0)])
    assert [says in sentence for sentence in found if says] == ([True] if says else [])
    assert doubts(baseline, [Slo("p99_tpot_ms", 15.0)]) == []
