"""Which knobs make no difference, and what the others contribute."""

from __future__ import annotations

import pytest
from helpers.records import measured, trial_row

from tuner.analysis.knob_returns import contributions, returnable, returned, simplified
from tuner.configuration import Configuration
from tuner.slo import Slo
from tuner.store import TrialRow

SLOS = (Slo("p99_tpot_ms", 50.0),)
BASE = Configuration()
FULL = Configuration(flags={"max_num_seqs": 64}, device={"power_limit_w": 400, "sm_clock_mhz": 900})


def trial(
    number: int, configuration: Configuration, energy_j: float, tpot_ms: float, ttft_ms: float = 99
) -> TrialRow:
    metrics = {
        "energy_per_output_token_j": energy_j,
        "p99_tpot_ms": tpot_ms,
        "mean_tpot_ms": 0.8 * tpot_ms,
        "mean_ttft_ms": ttft_ms,
    }
    return trial_row(number, measured(metrics), configuration)


def without(*names: str, of: Configuration = FULL, base: Configuration = BASE) -> Configuration:
    for name in names:
        of = returned(of, name, base)
    return of


DEFAULT = trial(0, BASE, 0.4, 20.0)
BEST = trial(1, FULL, 0.25, 40.0)


def test_a_limit_that_never_bound_is_dropped_though_the_sensor_says_a_little_more() -> None:
    same = trial(2, without("power_limit_w"), 0.256, 40.1)
    assert simplified([DEFAULT, BEST, same], SLOS, BASE, {})[1].number == 2


def test_what_costs_energy_or_latency_stays() -> None:
    costs = trial(2, without("sm_clock_mhz"), 0.27, 30.0)
    slow = trial(3, without("max_num_seqs"), 0.24, 42.0)
    assert simplified([DEFAULT, BEST, costs, slow], SLOS, BASE, {}) == {}


def test_a_longer_latency_is_no_loss_far_within_the_slo() -> None:
    slow = trial(3, without("max_num_seqs"), 0.24, 42.0)
    assert simplified([DEFAULT, BEST, slow], SLOS, BASE, {str(SLOS[0]): 0.1})[1].number == 3
    assert simplified([DEFAULT, BEST, slow], SLOS, BASE, {str(SLOS[0]): 0.3}) == {}


def test_a_lucky_window_of_the_fuller_one_keeps_no_knob() -> None:
    """A night of 70B: five windows at 1,740 MHz behaved alike, and the first used 3.3 % less."""
    two = ("power_limit_w", "max_num_seqs")
    others = [
        trial(2, without(two[0]), 0.259, 40.0),
        trial(3, without(two[1]), 0.259, 40.0),
        trial(4, without(*two), 0.259, 40.0),
    ]
    assert simplified([DEFAULT, BEST, *others], SLOS, BASE, {})[1].number == 4


def test_what_each_knob_saves_by_itself_is_no_luck() -> None:
    """A knob whose own share shows with and without the other stays, though nothing is slower."""
    two = ("power_limit_w", "max_num_seqs")
    others = [
        trial(2, without(two[0]), 0.26, 40.0),
        trial(3, without(two[1]), 0.25, 40.0),
        trial(4, without(*two), 0.26, 40.0),
    ]
    assert simplified([DEFAULT, BEST, *others], SLOS, BASE, {})[1].number == 3


def test_knobs_go_back_one_after_the_other() -> None:
    one = trial(2, without("power_limit_w"), 0.25, 40.0)
    two = trial(3, without("power_limit_w", "max_num_seqs"), 0.25, 40.0)
    found = simplified([DEFAULT, BEST, one, two], SLOS, BASE, {})
    assert {number: t.number for number, t in found.items()} == {1: 3, 2: 3}


def test_a_knob_goes_back_to_the_users_own_baseline() -> None:
    own = Configuration(flags={"max_num_seqs": 256})
    assert without("max_num_seqs", base=own).flags == {"max_num_seqs": 256}
    assert returnable(without("max_num_seqs", base=own), own) == ["power_limit_w", "sm_clock_mhz"]
    load = Configuration(load={"request_rate": 3.0}, device={"power_limit_w": 300})
    assert returnable(load, BASE) == ["power_limit_w"]


def test_what_each_knob_contributes() -> None:
    costs = trial(2, without("sm_clock_mhz"), 0.30, 30.0)
    misses = trial(3, without("max_num_seqs"), 0.24, 60.0)
    found = {c.name: c for c in contributions(BEST, [DEFAULT, BEST, costs, misses], SLOS, BASE)}
    assert found["sm_clock_mhz"].energy_percent == pytest.approx(20.0)
    assert found["sm_clock_mhz"].meets_slo
    assert found["max_num_seqs"].meets_slo is False
    assert found["power_limit_w"].energy_percent is None
