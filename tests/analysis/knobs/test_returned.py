"""A knob goes back to what the baseline has."""

from __future__ import annotations

from helpers.knob_rows import BASE, without

from tuner.analysis.knobs.returned import returnable
from tuner.configuration import Configuration


def test_a_knob_goes_back_to_the_users_own_baseline() -> None:
    own = Configuration(flags={"max_num_seqs": 256})
    assert without("max_num_seqs", base=own).flags == {"max_num_seqs": 256}
    assert returnable(without("max_num_seqs", base=own), own) == ["power_limit_w", "sm_clock_mhz"]
    load = Configuration(load={"request_rate": 3.0}, device={"power_limit_w": 300})
    assert returnable(load, BASE) == ["power_limit_w"]
