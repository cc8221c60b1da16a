"""The verdict for traffic that was not measured keeps what it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measurement.statistics.unseen_traffic import (
    LEAST_WINDOWS,
    SloVerdict,
    hardly_ever_met,
    prediction_bound,
    slo_verdict,
)


@pytest.mark.parametrize("windows", [4, 8, 20])
def test_95_of_100_further_windows_are_within_the_bound(windows: int) -> None:
    rng = np.random.default_rng(windows)
    drawn = rng.normal(0.3, 0.08, (8000, windows + 1))
    bounds = [prediction_bound(row[:-1].tolist()) or math.nan for row in drawn]
    assert np.mean(drawn[:, -1] <= bounds) == pytest.approx(0.95, abs=0.008)


def test_one_window_has_no_bound_and_many_one_near_the_share() -> None:
    assert prediction_bound([0.1]) is None
    values = np.random.default_rng(1).normal(0.0, 1.0, 4000).tolist()
    assert prediction_bound(values) == pytest.approx(1.645, abs=0.06)


def test_what_holds_is_seldom_given_up_and_what_cannot_is_given_up() -> None:
    rng = np.random.default_rng(2)
    holds, fails = rng.normal(-0.16, 0.08, (2000, 6)), rng.normal(-0.04, 0.08, (2000, 6))
    assert np.mean([hardly_ever_met(row.tolist()) for row in holds]) < 0.15
    assert np.mean([hardly_ever_met(row.tolist()) for row in fails]) > 0.8
    assert not hardly_ever_met([0.5, 0.5, 0.5])  # too few to say


@given(st.lists(st.floats(-2.0, -0.5), min_size=LEAST_WINDOWS, max_size=12), st.floats(0.0, 1.0))
def test_a_verdict_is_never_better_for_longer_latencies(values: list[float], more: float) -> None:
    order = [SloVerdict.MET, SloVerdict.UNCERTAIN, SloVerdict.MISSED]
    slower = [v + more for v in values]
    assert order.index(slo_verdict(values)) <= order.index(slo_verdict(slower))


def test_one_miss_among_many_is_allowed_and_two_of_four_are_not() -> None:
    assert slo_verdict([-0.3] * 19 + [0.01]) is SloVerdict.MET
    assert slo_verdict([-0.5, -0.5, 0.01, 0.01]) is SloVerdict.MISSED
    assert slo_verdict([-0.1, 0.12]) is SloVerdict.MISSED  # the mean is beyond
    assert slo_verdict([0.1]) is SloVerdict.UNCERTAIN
    assert slo_verdict([0.5]) is SloVerdict.MISSED
    assert slo_verdict([]) is SloVerdict.UNCERTAIN
    assert slo_verdict([-math.inf] * 4) is SloVerdict.MET
    assert slo_verdict([math.inf, -1.0]) is SloVerdict.MISSED
