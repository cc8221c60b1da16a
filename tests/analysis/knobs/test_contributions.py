"""What each knob of a configuration does."""

from __future__ import annotations

import pytest
from helpers.knob_rows import BASE, BEST, DEFAULT, SLOS, trial, without

from tuner.analysis.knobs.contributions import contributions


def test_what_each_knob_contributes() -> None:
    costs = trial(2, without("sm_clock_mhz"), 0.30, 30.0)
    misses = trial(3, without("max_num_seqs"), 0.24, 60.0)
    found = {c.name: c for c in contributions(BEST, [DEFAULT, BEST, costs, misses], SLOS, BASE)}
    assert found["sm_clock_mhz"].energy_percent == pytest.approx(20.0)
    assert found["sm_clock_mhz"].meets_slo
    assert found["max_num_seqs"].meets_slo is False
    assert found["power_limit_w"].energy_percent is None
