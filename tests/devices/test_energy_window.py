"""The verdict on one window, from made-up samples."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.devices.device_state import DeviceState
from tuner.devices.energy_window import (
    COUNTER_APART,
    INTEGRAL_UNKNOWN,
    LIMIT_NOT_BINDING,
    MAX_LIMIT_UNKNOWN,
    PROCESSES_UNKNOWN,
    SLOWDOWN_UNKNOWN,
    EnergyWindow,
    apart,
    held_integral,
    judge_window,
)
from tuner.devices.timeline import DeviceTimeline

GPUS = ("GPU-a", "GPU-b")
STATE = DeviceState(
    uuid="GPU-a",
    name="H100",
    time_s=0.0,
    energy_j=0.0,
    power_w=300.0,
    power_1s_average_w=300.0,
    sm_clock_mhz=1980,
    max_sm_clock_mhz=1980,
    temperature_c=50,
    gpu_utilisation=1.0,
    memory_used_bytes=0,
    memory_total_bytes=80 * 2**30,
    event_reasons=0,
    power_limit_w=700.0,
    default_power_limit_w=700.0,
    min_power_limit_w=200.0,
    max_power_limit_w=700.0,
    enforced_power_limit_w=700.0,
    pids=(11, 12),
    mig_enabled=False,
)


def timeline(power_w: list[float], reasons: int = 0, counter_gain: float = 1.0) -> DeviceTimeline:
    """10 Hz over 6 s around a window of 1 s to 5 s; constant power on each GPU."""
    times_s = np.arange(61) / 10
    power = np.tile(power_w, (61, 1)).astype(np.float64)
    full = np.ones_like(power)
    energy_j = 1e6 + power * times_s[:, None] * counter_gain
    uuids = GPUS[: len(power_w)]
    return DeviceTimeline(uuids, times_s, energy_j, power, full * 1980, full * 50, full * reasons)


def window(samples: DeviceTimeline, **changes: object) -> EnergyWindow:
    states = tuple(replace(STATE, uuid=uuid) for uuid in samples.uuids)
    made = EnergyWindow(1.0, 5.0, samples, states, states, own_pids={11, 12, 13})
    return replace(made, **changes)


def states(**changes: object) -> tuple[DeviceState, ...]:
    return (replace(STATE, **changes),)


def test_a_good_window() -> None:
    verdict = judge_window(window(timeline([300.0, 200.0])))
    assert (verdict.valid, verdict.reasons, verdict.flags) == (True, (), ())
    assert verdict.energy_j == pytest.approx(2000)
    assert verdict.integral_j == pytest.approx(2000)


@given(
    watts=st.lists(st.floats(50, 690), min_size=1, max_size=2),
    edges=st.tuples(st.floats(0, 5.9), st.floats(0, 5.9)).filter(lambda e: abs(e[0] - e[1]) > 0.05),
)
def test_constant_power_gives_power_times_time(
    watts: list[float], edges: tuple[float, float]
) -> None:
    start_s, end_s = sorted(edges)
    verdict = judge_window(window(timeline(watts), start_s=start_s, end_s=end_s))
    assert verdict.valid
    assert verdict.energy_j == pytest.approx(sum(watts) * (end_s - start_s), rel=1e-4)
    assert verdict.integral_j == pytest.approx(sum(watts) * (end_s - start_s), rel=1e-9)


@given(cut_s=st.floats(1.2, 4.8), powers=st.lists(st.floats(0, 700), min_size=61, max_size=61))
def test_energy_of_a_window_is_that_of_its_parts(cut_s: float, powers: list[float]) -> None:
    base = timeline([300.0])
    column = np.array(powers)[:, None]
    samples = replace(base, power_w=column, energy_j=np.cumsum(column, axis=0))
    whole, left, right = (
        judge_window(window(samples, start_s=a, end_s=b))
        for a, b in ((1.0, 5.0), (1.0, cut_s), (cut_s, 5.0))
    )
    for name in ("energy_j", "integral_j"):
        parts = getattr(left, name) + getattr(right, name)
        assert getattr(whole, name) == pytest.approx(parts, abs=1e-6)


@given(scale=st.floats(0.1, 2.0))
def test_scaling_power_scales_joules(scale: float) -> None:
    one, other = (judge_window(window(timeline([w]))) for w in (300.0, 300.0 * scale))
    assert one.energy_j is not None and one.integral_j is not None
    assert other.energy_j == pytest.approx(one.energy_j * scale)
    assert other.integral_j == pytest.approx(one.integral_j * scale)


@given(gain=st.floats(0.5, 1.8))
def test_a_counter_that_is_off_is_flagged_and_not_invalid(gain: float) -> None:
    verdict = judge_window(window(timeline([300.0], counter_gain=gain)))
    assert verdict.valid
    off = abs(gain - 1) / max(gain, 1)
    if abs(off - 0.05) > 1e-6:
        assert (COUNTER_APART in verdict.flags) == (off > 0.05)


@given(a=st.floats(0, 1e6), b=st.floats(0, 1e6))
def test_apart_is_symmetric(a: float, b: float) -> None:
    assert apart(a, b) == apart(b, a)
    assert not apart(a, a)


def test_apart_is_5_percent_of_the_larger() -> None:
    assert not apart(95.1, 100)
    assert apart(94.9, 100)


def test_the_edge_values_are_held() -> None:
    times_s = np.array([1.0, 2.0])
    assert held_integral(times_s, np.array([100.0, 300.0]), 0.0, 3.0) == 100 + 200 + 300
    assert held_integral(times_s, np.array([100.0, 300.0]), 1.25, 1.75) == 100


def test_a_window_that_is_not_sampled_has_no_energy() -> None:
    for start_s, end_s in ((-1.0, 5.0), (1.0, 6.5)):
        verdict = judge_window(window(timeline([300.0]), start_s=start_s, end_s=end_s))
        assert not verdict.valid
        assert verdict.reasons == ("the power samples do not cover the window",)
        assert verdict.energy_j is verdict.integral_j is None
    empty = DeviceTimeline(("GPU-a",), np.empty(0), *[np.empty((0, 1))] * 5)
    assert not judge_window(window(empty)).valid


def test_a_gap_in_the_samples_is_invalid() -> None:
    samples = timeline([300.0])
    keep = (samples.times_s < 2.0) | (samples.times_s > 3.1)
    rows = {
        name: getattr(samples, name)[keep]
        for name in ("times_s", "energy_j", "power_w", "sm_clock_mhz", "temperature_c")
    }
    verdict = judge_window(
        window(replace(samples, event_reasons=samples.event_reasons[keep], **rows))
    )
    assert verdict.reasons == ("the power samples have a gap of 1.3 s",)


def test_a_counter_that_goes_back_is_invalid() -> None:
    samples = timeline([300.0, 300.0])
    samples.energy_j[30:, 1] -= 1e6
    verdict = judge_window(window(samples))
    assert not verdict.valid
    assert "went back" in verdict.reasons[0]
    assert verdict.energy_j is None


def test_a_counter_that_goes_back_outside_the_window_does_not_matter() -> None:
    samples = timeline([300.0])
    samples.energy_j[:5] += 1e6
    assert judge_window(window(samples)).valid


def test_a_counter_that_stands_still_is_invalid() -> None:
    samples = timeline([300.0])
    samples.energy_j[:] = 5.0
    verdict = judge_window(window(samples))
    assert verdict.reasons == ("the energy counter did not move in 4.0 s",)
    assert COUNTER_APART in verdict.flags


def test_more_energy_than_the_gpus_can_draw_is_invalid() -> None:
    most_w = 1.3 * 700
    assert judge_window(window(timeline([most_w - 1, most_w - 1]))).valid
    verdict = judge_window(window(timeline([most_w + 1, most_w + 1])))
    assert not verdict.valid
    assert "more than the 7280 J" in verdict.reasons[0]


def test_an_unknown_maximum_is_flagged() -> None:
    unknown = states(max_power_limit_w=None)
    verdict = judge_window(window(timeline([5000.0]), before=unknown))
    assert (verdict.valid, verdict.flags) == (True, (MAX_LIMIT_UNKNOWN,))


@pytest.mark.parametrize(
    ("bit", "word"),
    [(0x8, "hardware slowdown"), (0x20, "thermal"), (0x40, "thermal"), (0x80, "power brake")],
)
def test_one_sample_of_slowdown_makes_it_invalid(bit: int, word: str) -> None:
    samples = timeline([300.0, 300.0])
    samples.event_reasons[25, 1] = bit | 0x4
    verdict = judge_window(window(samples))
    assert not verdict.valid
    assert word in verdict.reasons[0]
    assert "2 %" in verdict.reasons[0]
    samples.event_reasons[25, 1] = 0
    samples.event_reasons[58, 1] = bit  # after the window
    assert judge_window(window(samples)).valid


@pytest.mark.parametrize("bit", [0x1, 0x2, 0x4, 0x10, 0x100])
def test_other_clock_events_are_normal(bit: int) -> None:
    assert judge_window(window(timeline([300.0], reasons=bit))).valid


def test_unknown_samples_are_flagged_not_zero() -> None:
    samples = timeline([300.0])
    samples.event_reasons[:] = np.nan
    samples.power_w[20] = np.nan
    verdict = judge_window(window(samples))
    assert verdict.valid
    assert verdict.flags == (INTEGRAL_UNKNOWN, SLOWDOWN_UNKNOWN)
    assert verdict.integral_j is None
    samples.energy_j[20] = np.nan
    verdict = judge_window(window(samples))
    assert verdict.reasons == ("a sample of the energy counter is missing",)
    assert verdict.energy_j is None


@pytest.mark.parametrize(("before_w", "after_w"), [(700, 400), (400, 700), (700, 700), (400, None)])
def test_a_limit_that_was_not_in_force_is_invalid(before_w: float, after_w: float | None) -> None:
    verdict = judge_window(
        window(
            timeline([395.0]),
            before=states(enforced_power_limit_w=before_w),
            after=states(enforced_power_limit_w=after_w),
            power_limit_w=400.0,
        )
    )
    assert not verdict.valid
    assert "enforced power limit of GPU-a" in verdict.reasons[0]
    assert "instead of 400 W" in verdict.reasons[0]


def test_a_limit_in_force_throughout_is_valid() -> None:
    held = states(enforced_power_limit_w=400.2)
    made = window(timeline([395.0]), before=held, after=held, power_limit_w=400.0)
    assert judge_window(made).valid


def test_without_a_limit_of_ours_it_only_has_to_stay_the_same() -> None:
    unknown, low = states(enforced_power_limit_w=None), states(enforced_power_limit_w=500.0)
    samples = timeline([300.0])
    assert judge_window(window(samples, before=low, after=low)).valid
    assert judge_window(window(samples, before=unknown, after=unknown)).valid
    assert not judge_window(window(samples, before=low, after=states())).valid
    assert not judge_window(window(samples, before=low, after=unknown)).valid


@pytest.mark.parametrize(
    ("power_w", "reasons", "limit_w", "flagged"),
    [
        (300.0, 0x0, 400.0, True),
        (379.0, 0x0, 400.0, True),
        (381.0, 0x0, 400.0, False),
        (300.0, 0x4, 400.0, False),
        (300.0, 0x0, None, False),
    ],
)
def test_a_limit_that_never_bound_is_flagged(
    power_w: float, reasons: int, limit_w: float | None, flagged: bool
) -> None:
    held = states(enforced_power_limit_w=400.0)
    made = window(timeline([power_w], reasons), before=held, after=held, power_limit_w=limit_w)
    verdict = judge_window(made)
    assert verdict.valid
    assert (LIMIT_NOT_BINDING in verdict.flags) == flagged


def test_foreign_processes_are_named() -> None:
    samples = timeline([300.0])
    verdict = judge_window(window(samples, after=states(pids=(11, 99, 77))))
    assert verdict.reasons == ("other processes on GPU-a after the window: 77, 99",)
    verdict = judge_window(window(samples, before=states(pids=(98,)), own_pids=()))
    assert len(verdict.reasons) == 2
    assert judge_window(window(samples, before=states(pids=()))).valid


def test_unknown_processes_are_flagged() -> None:
    verdict = judge_window(window(timeline([300.0]), after=states(pids=None)))
    assert (verdict.valid, verdict.flags) == (True, (PROCESSES_UNKNOWN,))
