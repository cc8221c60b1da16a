"""Races on the emulator: who loses, and who does not, beside a trial on the same requests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from helpers.virtual_loads import metrics_of, workload

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator.virtual import simulate
from tuner.measurement.racing.race import Race, is_compared
from tuner.measurement.racing.rival import Rival, rival_of
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.records import Load, RawRun
from tuner.slo import Slo

OBJECTIVES = ("energy_per_output_token_j", "p99_tpot_ms")
SLOS = (Slo("p99_tpot_ms", 60.0), Slo("p99_ttft_ms", 2000.0))
PLAN = WindowPlan(window_s=90.0).on_one_stretch()
SLOW = Configuration(flags={"async_scheduling": False}, device={"sm_clock_mhz": 1500.0})
FAST = Configuration(device={"sm_clock_mhz": 1200.0})


def run(
    configuration: Configuration, noise: int, race: Race | None = None, requests: int = 1
) -> RawRun:
    """Run three requests/s of chat; `requests` is the seed of the traffic."""
    return simulate(
        load_model("meta-llama/Llama-3.1-8B-Instruct"),
        load_gpu("H100-SXM"),
        configuration,
        workload("chat", requests).requests(),
        Load(request_rate=3.0),
        SteadyWindow(replace(PLAN, race=race)),
        seed=noise,
    )


@cache
def rival() -> Rival:
    """A trial that was measured in full."""
    raw = run(FAST, 0)
    found = rival_of(3, raw, metrics_of(raw), 0.0)
    assert found is not None
    return found


def ended(
    configuration: Configuration,
    noise: int = 1,
    slos: tuple[Slo, ...] = SLOS,
    objectives: tuple[str, ...] = OBJECTIVES,
    rivals: tuple[Rival, ...] | None = None,
) -> tuple[str | None, float]:
    """Return why a load ended early, and when it ended."""
    race = Race(objectives, slos, (rival(),) if rivals is None else rivals)
    raw = run(configuration, noise, race)
    return None if raw.ended_early is None else raw.ended_early.reason, raw.window_end_s


def test_what_uses_more_and_is_slower_ends_before_its_window_is_over() -> None:
    mine, whole = metrics_of(run(SLOW, 1)), rival().metrics
    assert all(mine[name] > 1.03 * whole[name] for name in OBJECTIVES)
    reason, end_s = ended(SLOW)
    assert reason is not None and "is no better than trial 3" in reason
    assert end_s < 100.0


def test_what_is_better_in_one_objective_is_measured_to_the_end() -> None:
    for configuration in (Configuration(), Configuration(device={"sm_clock_mhz": 900.0})):
        reason, end_s = ended(configuration)
        assert (reason, end_s) == (None, 135.0)


def test_what_saves_energy_and_misses_an_slo_by_far_ends() -> None:
    reason, end_s = ended(
        Configuration(device={"sm_clock_mhz": 600.0}), slos=(Slo("p99_tpot_ms", 16.0),)
    )
    assert reason is not None and "misses p99_tpot_ms<=16, beside trial 3" in reason
    assert end_s < 120.0


def test_a_rival_that_misses_an_slo_beats_nobody_who_may_meet_it() -> None:
    slos = (Slo("p99_ttft_ms", 0.9 * rival().metrics["p99_ttft_ms"]),)
    faster = Configuration(device={"sm_clock_mhz": 1980.0})
    assert ended(faster, slos=slos, objectives=OBJECTIVES[:1])[0] is None


def test_one_on_other_requests_is_compared_in_nothing_but_energy() -> None:
    other = run(FAST, 0, requests=2)
    found = rival_of(4, other, metrics_of(other), 0.0)
    assert found is not None
    assert ended(SLOW, rivals=(found,))[0] is None


def test_the_same_again_is_never_said_to_miss_what_the_rival_meets_with_room() -> None:
    for noise in range(1, 4):
        reason, _ = ended(FAST, noise)
        assert reason is None or "is no better than" in reason


@pytest.mark.parametrize(
    ("metric", "is_it"),
    [
        ("energy_per_output_token_j", True),
        ("p99_e2el_ms", True),
        ("mean_ttft_ms", True),
        ("p99_itl_ms", False),
        ("output_throughput_tok_s", False),
        ("slo_attainment", False),
    ],
)
def test_what_can_be_compared(metric: str, is_it: bool) -> None:
    assert is_compared(metric) is is_it
