"""Which knobs make no difference, by how many windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.knob_rows import BASE, BEST, DEFAULT, FULL, SLOS, trial, without
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.knobs.returns import Returns
from tuner.store import TrialRow


def standing(trials: list[TrialRow], margin: float | None = None) -> list[int]:
    return [t.number for t in Returns(trials, SLOS, BASE, _within(margin)).standing]


def again(
    trials: list[TrialRow], margin: float | None = None, of: TrialRow = BEST
) -> tuple[str, ...] | None:
    return Returns(trials, SLOS, BASE, _within(margin)).measured_again(of)


def _within(margin: float | None) -> dict[str, float]:
    return {} if margin is None else {str(SLOS[0]): margin}


def test_a_limit_that_never_bound_is_dropped_though_the_sensor_says_a_little_more() -> None:
    same = trial(2, without("power_limit_w"), 0.256, 40.1)
    assert standing([DEFAULT, BEST, same]) == [0, 2]


def test_what_costs_energy_or_latency_stays() -> None:
    costs = trial(2, without("sm_clock_mhz"), 0.27, 30.0)
    slow = trial(3, without("max_num_seqs"), 0.24, 42.0)
    assert standing([DEFAULT, BEST, costs, slow]) == [0, 1, 2, 3]


def test_a_longer_latency_is_no_loss_far_within_the_slo() -> None:
    slow = trial(3, without("max_num_seqs"), 0.24, 42.0)
    assert standing([DEFAULT, BEST, slow], 0.1) == [0, 3]
    assert standing([DEFAULT, BEST, slow], 0.3) == [0, 1, 3]


def test_a_lucky_window_of_the_fuller_one_keeps_no_knob() -> None:
    """A night of 70B: five windows at 1,740 MHz behaved alike, and the first used 3.3 % less."""
    two = ("power_limit_w", "max_num_seqs")
    others = [
        trial(2, without(two[0]), 0.259, 40.0),
        trial(3, without(two[1]), 0.259, 40.0),
        trial(4, without(*two), 0.259, 40.0),
    ]
    assert standing([DEFAULT, BEST, *others]) == [0, 4]


def test_what_each_knob_saves_by_itself_is_no_luck() -> None:
    """A knob whose own share shows with and without the other stays, though nothing is slower."""
    two = ("power_limit_w", "max_num_seqs")
    others = [
        trial(2, without(two[0]), 0.26, 40.0),
        trial(3, without(two[1]), 0.25, 40.0),
        trial(4, without(*two), 0.26, 40.0),
    ]
    assert standing([DEFAULT, BEST, *others]) == [0, 3, 4]


def test_what_one_window_cannot_tell_is_measured_again_and_the_means_count() -> None:
    """A night of code: without 64 sequences 3.4 % more, though nothing was slower."""
    without_it = without("max_num_seqs")
    night = [DEFAULT, BEST, trial(2, without_it, 0.2586, 40.0)]
    assert standing(night) == [0, 1, 2]
    assert again(night, 0.1) == ()
    night.append(trial(3, FULL, 0.2555, 40.0))
    assert standing(night) == [0, 2]
    assert again(night, 0.1) is None


def test_what_is_slower_and_saves_nothing_goes_back_too() -> None:
    """A night of 8B chat: 1,024 batched tokens took longer, and used 2.2 % less by chance."""
    without_it = without("max_num_seqs")
    night = [DEFAULT, BEST, trial(2, without_it, 0.2555, 38.0, ttft_ms=75.0)]
    assert again(night, 0.1) == ()
    night.append(trial(3, FULL, 0.2515, 40.0))
    assert again(night, 0.1) == ("max_num_seqs",)
    night.append(trial(4, without_it, 0.2485, 38.0, ttft_ms=75.0))
    assert standing(night) == [0, 2]


def test_what_surely_saves_or_keeps_an_slo_needs_no_further_window() -> None:
    costs = trial(2, without("sm_clock_mhz"), 0.263, 30.0)
    misses = trial(3, without("max_num_seqs"), 0.255, 60.0)
    assert again([DEFAULT, BEST, costs, misses], 0.1) is None


@given(st.floats(-0.02, 0.06), st.integers(0, 1000))
def test_a_return_is_decided_by_three_windows_of_each_at_most(more: float, seed: int) -> None:
    assert len(_to_the_end(more, seed)) <= 1 + 3 + 3


def test_what_saves_nothing_goes_back_and_a_step_of_the_clock_stays() -> None:
    """The fuller one was measured best of four equals, so it was lucky; see docs/promise.md."""
    went_back = {
        more: np.mean([_goes_back(_to_the_end(more, seed)) for seed in range(400)])
        for more in (0.0, 0.04)
    }
    assert went_back[0.0] > 0.97
    assert went_back[0.04] < 0.03


def _to_the_end(more: float, seed: int) -> list[TrialRow]:
    """Return the trials of a night that measures a return until it is decided."""
    rng = np.random.default_rng(seed)
    simpler = without("max_num_seqs")
    lucky = float(rng.standard_normal(4).min())
    first, its = 0.25 * (1.0 + 0.01 * lucky), 0.25 * (1.0 + more + 0.01 * rng.standard_normal())
    night = [DEFAULT, trial(1, FULL, first, 40.0), trial(2, simpler, its, 38.0)]
    while (names := again(night, of=night[1])) is not None:
        true_j = 0.25 * (1.0 + more) if names else 0.25
        seen_j = true_j * (1.0 + 0.01 * rng.standard_normal())
        configuration, tpot_ms = (simpler, 38.0) if names else (FULL, 40.0)
        night.append(trial(len(night), configuration, seen_j, tpot_ms))
    return night


def _goes_back(night: list[TrialRow]) -> bool:
    return 1 not in standing(night)


@pytest.mark.parametrize(("tpot_ms", "stands_with_j"), [(40.0, 0.2505), (38.0, 0.251)])
def test_what_takes_anothers_place_stands_with_the_mean_of_all_that_behaved_the_same(
    tpot_ms: float, stands_with_j: float
) -> None:
    simple = trial(2, without("power_limit_w"), 0.251, tpot_ms)
    default, found = Returns([DEFAULT, BEST, simple], SLOS, BASE, {}).standing
    assert (default.number, found.number) == (0, 2)
    assert found.measurement is not None
    its_j = found.measurement.metrics["energy_per_output_token_j"]
    assert its_j == pytest.approx(stands_with_j)


def test_windows_of_what_behaved_the_same_decide_together() -> None:
    """Trial 2 stands with three windows, so that what lacks one more knob is no longer in doubt."""
    same = trial(2, without("max_num_seqs"), 0.2505, 40.0)
    more = [trial(n, FULL, 0.25, 40.0) for n in (3, 4)]
    costs = trial(5, without("max_num_seqs", "power_limit_w"), 0.26, 38.0)
    found = again([DEFAULT, BEST, same, costs], of=same)
    assert found == ("power_limit_w",)
    night = [DEFAULT, BEST, same, *more, costs, replace(costs, number=6)]
    assert again(night, of=same) is None


def test_knobs_go_back_one_after_the_other() -> None:
    one = trial(2, without("power_limit_w"), 0.25, 40.0)
    two = trial(3, without("power_limit_w", "max_num_seqs"), 0.25, 40.0)
    assert standing([DEFAULT, BEST, one, two]) == [0, 3]
