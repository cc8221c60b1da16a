"""Energy of known power profiles, by the meter's counter and by sampled power."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from helpers.nvml_standin import Standin

from tuner.devices.energy_window import COUNTER_APART, EnergyWindow, judge_window
from tuner.devices.nvidia.nvml_meter import NvmlMeter
from tuner.devices.timeline import DeviceTimeline

WINDOW_S = 5.0
UPDATE_S = 0.01  # a real counter's 20-100 ms, scaled to a window far below the 60 s of a study
PROFILES = ["constant", "square wave", "bursts", "1 s sensor", "counter 10 % off"]


def one_gpu(timeline: DeviceTimeline, index: int) -> DeviceTimeline:
    part = slice(index, index + 1)
    return DeviceTimeline(
        timeline.uuids[part],
        timeline.times_s,
        timeline.energy_j[:, part],
        timeline.power_w[:, part],
        timeline.sm_clock_mhz[:, part],
        timeline.temperature_c[:, part],
        timeline.event_reasons[:, part],
    )


def steer(standin: Standin) -> None:
    standin.set_count(len(PROFILES))
    for i in range(len(PROFILES)):
        device = standin.device(i)
        device.set(**{**_fields(standin), "uuid": f"GPU-{i}".encode()})
    standin.device(0).constant(420)
    standin.device(1).square(150, 450, period_s=1.5)
    standin.device(2).square(200, 600, period_s=0.03, duty=0.25)  # thrice per sample
    standin.device(3).square(100, 500, period_s=0.8)
    standin.device(3).fail("nvmlDeviceGetFieldValues", 3)  # only the average is left
    standin.device(4).set(counter_gain=0.9)


def _fields(standin: Standin) -> dict[str, object]:
    names = "name low_w high_w period_s duty idle_w counter_gain average_s min_mw max_mw"
    names += " default_mw limit_mw min_sm_mhz max_sm_mhz step_sm_mhz memory_mhz"
    fields = {name: standin.device(0).get(name) for name in names.split()}
    return {**fields, "counter_period_s": UPDATE_S, "origin_s": time.monotonic()}


def test_known_profiles(standin: Standin, meter: Callable[..., NvmlMeter]) -> None:
    steer(standin)
    one = meter()
    before = one.states()
    start_s = time.monotonic()
    time.sleep(WINDOW_S + 0.3)
    sampled = one.device_timeline(start_s, start_s + WINDOW_S)
    # at samples: between two of them nobody knows when the power of a wave changed
    start_s, end_s = sampled.times_s[1], sampled.times_s[-2]
    after = one.states()
    for i, profile in enumerate(PROFILES):
        device = standin.device(i)
        window = EnergyWindow(
            start_s, end_s, one_gpu(sampled, i), (before[i],), (after[i],), own_pids=()
        )
        verdict = judge_window(window)
        true_j = device.energy_j(end_s) - device.energy_j(start_s)
        assert verdict.valid, (profile, verdict)
        assert verdict.energy_j is not None
        gain = device.get("counter_gain")
        assert verdict.energy_j == pytest.approx(true_j * gain, rel=0.005), profile
        if profile != "bursts":  # samples of bursts see some of them, or none
            assert (COUNTER_APART in verdict.flags) == (gain != 1), (profile, verdict)


def test_a_limit_and_a_lock_lower_the_power(
    standin: Standin, meter: Callable[..., NvmlMeter]
) -> None:
    device = standin.device(0)
    device.set(low_w=650, high_w=650, follows_limit=1)
    one = meter(1, period_s=0.02)
    start_s = time.monotonic()
    time.sleep(0.25)
    device.set(limit_mw=400_000)
    changed_s = time.monotonic()
    time.sleep(0.25)
    timeline = one.device_timeline(start_s, changed_s + 0.2)
    early, late = timeline.times_s < changed_s - 0.02, timeline.times_s > changed_s + 0.02
    assert np.unique(timeline.power_w[early]).tolist() == [650]
    assert np.unique(timeline.power_w[late]).tolist() == [400]
    assert np.unique(timeline.event_reasons[late]).tolist() == [0x4]
    device.set(follows_clock=1, lock_min_mhz=990, lock_max_mhz=990)
    time.sleep(0.1)
    assert one.states()[0].power_w == pytest.approx(70 + (650 - 70) / 4)
    assert one.states()[0].event_reasons == 0
