"""Accuracy: the exact paired test and the interval, against SciPy's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tuner.measurement.quality.accuracy import Accuracy, accuracy_change


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_the_paired_test_is_the_exact_binomial_one(pairs: list[tuple[bool, bool]]) -> None:
    found = accuracy_change([a for a, _ in pairs], [b for _, b in pairs])
    assert found is not None
    lost, won = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    expected = binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert found.p_value == pytest.approx(expected)
    assert found.drop == pytest.approx((lost - won) / len(pairs))


@given(st.integers(1, 400), st.data())
def test_the_interval_is_wilsons(asked: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, asked))
    low, high = Accuracy(right, asked).interval
    expected = binomtest(right, asked).proportion_ci(method="wilson")
    assert low == pytest.approx(expected.low, abs=1e-6)
    assert high == pytest.approx(expected.high, abs=1e-6)


def test_other_questions_are_not_compared() -> None:
    assert accuracy_change([True], [True, False]) is None
    assert accuracy_change([], []) is None
