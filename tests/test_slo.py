import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.metrics import METRICS, Direction
from tuner.slo import Slo, meets_all, request_limits_ms


@pytest.mark.parametrize("text", ["p99_tpot_ms<=50", " p99_tpot_ms <= 50.0 "])
def test_parses(text: str) -> None:
    assert Slo.parse(text) == Slo("p99_tpot_ms", 50.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("p99_tpt_ms<=50", "did you mean 'p99_tpot_ms'"),
        ("p99_tpot_ms", "is not METRIC<=BOUND"),
        ("p99_tpot_ms<50", "is not METRIC<=BOUND"),
        ("p99_tpot_ms>=50", "needs a bound with '<='"),
        ("goodput_req_s<=1", "needs a bound with '>='"),
        ("p99_tpot_ms<=50ms", "'50ms' is not a number"),
        ("p99_tpot_ms<=nan", "is not a number greater than 0"),
        ("p99_tpot_ms<=-3", "is not a number greater than 0"),
        ("", "is not METRIC<=BOUND"),
    ],
)
def test_a_typo_is_told_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(UsageError, match="SLO") as caught:
        Slo.parse(text)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@given(st.sampled_from(sorted(METRICS)), st.floats(1e-3, 1e6), st.floats(1e-3, 1e6))
def test_violation_is_positive_exactly_when_missed(metric: str, bound: float, value: float) -> None:
    slo = Slo(metric, bound)
    missed = value > bound if METRICS[metric].better is Direction.MIN else value < bound
    assert (slo.violation(value) > 0) == missed
    assert meets_all({metric: value}, [slo]) == (not missed)
    assert Slo.parse(str(slo)).bound == pytest.approx(bound, rel=1e-5)


def test_an_unmeasured_metric_meets_nothing() -> None:
    assert not meets_all({}, [Slo("p99_tpot_ms", 50.0)])
    assert meets_all({}, [])


def test_zero_goodput_violates_without_an_error() -> None:
    assert Slo("goodput_req_s", 1.0).violation(0.0) == math.inf


def test_request_limits_take_the_strictest_latency_bound() -> None:
    slos = [Slo("p99_tpot_ms", 50), Slo("p50_tpot_ms", 30), Slo("mean_power_w", 400)]
    assert request_limits_ms(slos) == {"tpot_ms": 30}


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_the_text_of_a_bound_loses_nothing(bound: float) -> None:
    slo = Slo("p99_tpot_ms", bound)
    assert Slo.parse(slo.text) == slo
    assert Slo.parse(f" {slo.text} ").text == f" {slo.text} "
