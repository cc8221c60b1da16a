"""Studies side by side: the intervals of a ratio, and what must be said before comparing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night, repeat
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.side_by_side import Figure, _difference, compared_study, side_by_side
from tuner.store import Store

values = st.floats(0.01, 1e4)
shares = st.floats(0.001, 0.3)


@given(values, shares, values, shares)
def test_a_ratio_read_the_other_way_round_is_its_inverse(
    a: float, share_a: float, b: float, share_b: float
) -> None:
    one = Figure(a, (a / (1 + share_a), a * (1 + share_a)))
    other = Figure(b, (b / (1 + share_b), b * (1 + share_b)))
    there = _difference("default", "x", one, other)
    back = _difference("default", "x", other, one)
    assert (1 + there.percent / 100) * (1 + back.percent / 100) == pytest.approx(1)
    assert there.interval_percent is not None and back.interval_percent is not None
    low, high = there.interval_percent
    assert low < there.percent < high
    assert (1 + low / 100) * (1 + back.interval_percent[1] / 100) == pytest.approx(1)
    # wider than either mean alone, narrower than both added up
    half = math.log((1 + high / 100) / (1 + low / 100)) / 2
    halves = [math.log1p(share_a), math.log1p(share_b)]
    assert max(halves) <= half * (1 + 1e-9) and half <= sum(halves) * (1 + 1e-9)


def test_without_repeats_there_is_no_interval() -> None:
    found = _difference("default", "x", Figure(1.0, (0.9, 1.1)), Figure(2.0))
    assert (found.percent, found.interval_percent) == (100.0, None)


def test_what_differs_is_said(tmp_path: Path) -> None:
    with Store.open(tmp_path / "tuner.db", create=True) as store:
        here = replace(IDENTITY, gpu_uuids=("GPU-1",))
        add_night(store, here)
        there = replace(here, name="later", gpu_uuids=("GPU-2",), workload_sha256="f" * 64)
        add_night(store, replace(there, slos=("p99_tpot_ms<=10",)))
        for trial, energy_j in ((0, 0.40), (0, 0.41), (2, 0.25), (2, 0.26)):
            repeat(store, trial, energy_j, 40.0)
        found = side_by_side([compared_study(store, name) for name in ("night", "later")])
    first, second = found.studies
    assert first.best is not None and first.default_metrics["energy_per_output_token_j"].interval
    assert second.best is None and second.why_none is not None
    notes = " ".join(found.notes)
    for said in ("the requests or the load differ", "the SLOs differ", "different cards"):
        assert said in notes
    (entry,) = found.differences
    assert {d.of for d in entry} == {"default"}
