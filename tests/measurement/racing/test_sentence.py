"""The sentence of a lost race: what is written is read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measurement.racing.sentence import Lost, lost_in, lost_sentence

NAMES = st.sampled_from(["energy_per_output_token_j", "p99_tpot_ms", "p99_ttft_ms"])
HOWS = st.sampled_from(["is no better than", "misses p99_tpot_ms<=25, beside"])


@given(HOWS, st.integers(0, 10_000), st.dictionaries(NAMES, st.floats(-2.0, 3.0), min_size=1))
def test_it_is_read_as_it_was_meant(how: str, trial: int, ratios: dict[str, float]) -> None:
    found = lost_in(lost_sentence(how, Lost(trial, ratios), 51.4))
    assert found is not None and found.trial == trial
    assert found.log_ratios == pytest.approx(ratios, abs=5e-4)


def test_other_reasons_are_no_lost_races() -> None:
    assert (
        lost_in("ended early: 49 of 49 requests were past p95_tpot_ms<=20 in the first 10 s")
        is None
    )
    assert lost_in("it does not keep up with the offered load") is None
    written = lost_sentence("is no better than", Lost(6, {"p99_tpot_ms": math.log(1.1)}), 51.0)
    assert written == (
        "ended early: it is no better than trial 6 on the same requests of 51 s: "
        "p99_tpot_ms +10.00 %"
    )
    assert lost_in(written.replace("trial 6", "trial x")) is None
