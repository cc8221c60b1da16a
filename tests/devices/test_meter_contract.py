"""What every meter promises, whichever GPU is behind it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.nvml_standin import Standin

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.devices.emulated.activity import Activity, ActivityDriven
from tuner.devices.emulated.meters import (
    ActivityMeter,
    BusyMeter,
    EmulatedGpuMeter,
    EmulatorServerMeter,
)
from tuner.devices.meter import Meter, PowerReading, WindowContext
from tuner.devices.nvidia.nvml_meter import nvml_meter
from tuner.emulator.http.served_devices import create_devices
from tuner.records import Source

METERS = ["nvidia", "emulated GPU", "emulator's server", "activity", "busy"]
WATTS = 300.0


@pytest.fixture(params=METERS)
def meter(request: pytest.FixtureRequest, tmp_path: Path, standin: Standin) -> Iterator[Meter]:
    gpu = load_gpu("H100-SXM")
    makers: dict[str, Callable[[], Meter | None]] = {
        "nvidia": lambda: nvml_meter(1, period_s=0.02),
        "emulated GPU": lambda: EmulatedGpuMeter(
            gpu.name, create_devices(tmp_path / "gpus", gpu, 1).devices
        ),
        "emulator's server": lambda: EmulatorServerMeter(gpu.name),
        "activity": lambda: ActivityMeter(load_model("Qwen/Qwen3-8B"), gpu, 500.0),
        "busy": lambda: BusyMeter(gpu),
    }
    standin.device(0).constant(WATTS)
    made = makers[request.param]()
    assert made is not None
    yield made
    made.close()


def sampled(meter: Meter, seconds: float = 0.6) -> list[PowerReading]:
    """Read for a while, and tell a meter that has to be told what a server does."""
    readings: list[PowerReading] = []
    began_s = time.monotonic()
    while (now_s := time.monotonic()) < began_s + seconds:
        if isinstance(meter, ActivityDriven):
            done_s = now_s - began_s
            meter.follow(
                Activity(now_s, 8.0, 1e3 * done_s, 500 * done_s, WATTS * done_s, WATTS, 1980.0)
            )
        if (reading := meter.read(now_s)) is not None:
            readings.append(reading)
        time.sleep(0.02)
    assert len(readings) > 5
    return readings


def test_it_says_what_it_measures(meter: Meter) -> None:
    assert meter.gpu
    assert (meter.source is Source.MEASURED) == (meter.driver is not None)


def test_readings_come_in_order_and_the_counter_never_falls(meter: Meter) -> None:
    readings = sampled(meter)
    assert (np.diff([r.time_s for r in readings]) > 0).all()
    assert (np.diff([r.energy_j for r in readings]) >= 0).all()
    assert all(0 < r.power_w < 1000 for r in readings)


def test_the_timeline_holds_every_reading(meter: Meter) -> None:
    readings = sampled(meter)
    timeline = meter.timeline(readings[0].time_s, readings[-1].time_s)
    assert timeline.source is meter.source
    assert timeline.times_s.shape == timeline.power_w.shape == timeline.energy_j.shape
    assert (np.diff(timeline.times_s) > 0).all()
    rows = zip(timeline.times_s, timeline.power_w, timeline.energy_j, strict=True)
    kept = {time_s: (power_w, energy_j) for time_s, power_w, energy_j in rows}
    assert all(kept[r.time_s] == (r.power_w, r.energy_j) for r in readings)
    if timeline.sm_clock_mhz is not None:
        assert timeline.sm_clock_mhz.shape == timeline.times_s.shape
        assert [r.sm_clock_mhz for r in readings if r.sm_clock_mhz is not None]


def test_a_part_of_the_timeline_covers_what_was_asked_for(meter: Meter) -> None:
    readings = sampled(meter)
    first_s, last_s = readings[0].time_s, readings[-1].time_s
    start_s, end_s = first_s + 0.3 * (last_s - first_s), first_s + 0.7 * (last_s - first_s)
    part = meter.timeline(start_s, end_s)
    assert part.times_s[0] <= start_s < part.times_s[1]
    assert part.times_s[-2] < end_s <= part.times_s[-1]


def test_energy_is_power_over_time(meter: Meter) -> None:
    readings = sampled(meter)
    timeline = meter.timeline(readings[2].time_s, readings[-1].time_s)
    change_j = timeline.energy_j[-1] - timeline.energy_j[0]
    steps_s = np.diff(timeline.times_s)
    assert change_j == pytest.approx(float((timeline.power_w[:-1] * steps_s).sum()), rel=0.3)


def test_before_anything_was_sampled_the_timeline_says_nothing_of_later(meter: Meter) -> None:
    now_s = time.monotonic()
    timeline = meter.timeline(now_s + 60, now_s + 61)
    assert timeline.times_s.size <= 1
    assert not (timeline.times_s >= now_s + 60).any()


def test_a_quiet_window_is_believed(meter: Meter) -> None:
    before = meter.states()
    readings = sampled(meter)
    start_s, end_s = readings[1].time_s, readings[-2].time_s
    verdict = meter.judge(start_s, end_s, WindowContext(before, (), None))
    assert verdict.valid, verdict.reasons
    assert verdict.energy_j is None or math.isfinite(verdict.energy_j)


def test_it_is_closed_twice_without_harm(meter: Meter) -> None:
    meter.close()
    meter.close()
