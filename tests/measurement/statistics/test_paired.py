"""Pairs on the same traffic: what the traffic does to both is no noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measurement.statistics.compare import Verdict
from tuner.measurement.statistics.paired import (
    Pair,
    compare_pairs,
    drift_of_pairs,
    paired_changes,
)

ENERGY = "energy_per_output_token_j"


def test_the_interval_holds_the_truth_in_95_of_100() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(2000):
        traffic, noise = rng.lognormal(0.0, 0.2, 5), rng.lognormal(0.0, 0.01, 5)
        found = compare_pairs(
            ENERGY, [Pair(*p) for p in zip(0.7 * traffic * noise, traffic, strict=True)]
        )
        assert found.interval is not None
        held += found.interval.low <= -0.3 <= found.interval.high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_one_pair_says_nothing_of_its_noise() -> None:
    found = compare_pairs(ENERGY, [Pair(0.3, 0.4)])
    assert found.difference == pytest.approx(-0.25)
    assert found.interval is None and found.verdict is Verdict.UNKNOWN


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        compare_pairs(ENERGY, [])
    with pytest.raises(ValueError, match="values above 0"):
        Pair(0.3, 0.0)


@pytest.mark.parametrize("drift", [0.0, 0.004])
def test_a_drift_is_taken_out_where_the_order_changes(drift: float) -> None:
    rng = np.random.default_rng(7)
    steps = [1, -1, 2, -1, 1, -2]
    groups = [
        [Pair(ratio * np.exp(drift * s + 3e-4 * rng.standard_normal()), 1.0, s) for s in steps[:n]]
        for ratio, n in ((0.7, 5), (0.9, 3), (0.8, 6))
    ]
    seen, per_step = drift_of_pairs(groups, 20)
    assert seen.seen == (drift > 0.0)
    assert per_step == pytest.approx(drift, rel=0.1)
    for ratio, group in zip((0.7, 0.9, 0.8), groups, strict=True):
        found = compare_pairs(ENERGY, group, seen, per_step)
        assert 1.0 + found.difference == pytest.approx(ratio, rel=7e-4)


def test_pairs_in_one_order_say_nothing_of_a_drift() -> None:
    drift, per_step = drift_of_pairs([[Pair(0.7, 1.0, 1)] * 8], 16)
    assert drift.change is None and per_step == 0.0


@given(
    ratio=st.floats(0.01, 100.0),
    weights=st.lists(st.floats(0.1, 10.0), min_size=1, max_size=6),
)
def test_a_change_is_the_same_whatever_each_stretch_asks_for(
    ratio: float, weights: list[float]
) -> None:
    pairs = [({"w": 3.0 * ratio * k, "zero": 0.0}, {"w": 3.0 * k, "zero": 1.0}) for k in weights]
    pairs[0][0]["ours alone"] = 1.0
    assert paired_changes(pairs) == {"w": pytest.approx(ratio - 1.0, abs=1e-9)}


def test_without_pairs_no_change_is_known() -> None:
    assert paired_changes([]) == {}
