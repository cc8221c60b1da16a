"""The verdict on SLOs for traffic that was not measured."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tuner.measurement.statistics.unseen_traffic import (
    LEAST_WINDOWS,
    SloVerdict,
    is_missed,
    slo_verdict,
)

ORDER = [SloVerdict.MET, SloVerdict.UNCERTAIN, SloVerdict.MISSED]


@given(
    st.lists(st.floats(-2.0, 0.5), min_size=LEAST_WINDOWS, max_size=12),
    st.floats(0.0, 1.0),
    st.floats(0.0, 0.2),
)
def test_a_verdict_is_never_better_for_longer_latencies(
    values: list[float], more: float, chance: float
) -> None:
    slower = [v + more for v in values]
    before, after = slo_verdict([values], chance), slo_verdict([slower], chance + more)
    assert ORDER.index(before) <= ORDER.index(after)


def test_own_windows_reject_by_their_mean_or_by_how_many_miss() -> None:
    assert not is_missed([-0.3] * 19 + [0.01])
    assert is_missed([-0.5, -0.5, 0.01, 0.01])
    assert is_missed([-0.1, 0.12])  # the mean is beyond
    assert not is_missed([0.1])
    assert is_missed([0.5])
    assert not is_missed([])
    assert not is_missed([-math.inf] * 4)
    assert is_missed([math.inf, -1.0])


def test_it_is_met_if_few_windows_are_expected_to_miss_any() -> None:
    own = [-0.3] * LEAST_WINDOWS
    assert slo_verdict([own, own], 0.04) is SloVerdict.MET
    assert slo_verdict([own, own], 0.05) is SloVerdict.UNCERTAIN  # the best of several looks so
    assert slo_verdict([own, own[1:]], 0.01) is SloVerdict.UNCERTAIN  # too few of its own
    assert slo_verdict([own, [0.3]], 0.01) is SloVerdict.MISSED
    assert slo_verdict([], 0.0) is SloVerdict.MET  # no SLO
