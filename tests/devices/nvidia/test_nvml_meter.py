"""The meter of real GPUs, on stand-ins."""

import gc
import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
from helpers.alive import ends
from helpers.nvml_standin import Standin
from helpers.nvml_standin.standin import DRIVER_NOT_LOADED, GPU_IS_LOST, NOT_SUPPORTED, UNKNOWN

from tuner.devices.meter import Meter, PowerReading, WindowContext
from tuner.devices.nvidia import agent
from tuner.devices.nvidia.agent import Sampler
from tuner.devices.nvidia.faults import NvmlFault
from tuner.devices.nvidia.nvml_library import FAULTS, NvmlFaultError
from tuner.devices.nvidia.nvml_meter import NvmlMeter, nvml_meter
from tuner.devices.nvidia.ring import RingReader, RingWriter, create_ring_file
from tuner.errors import OperatorNeededError, PreflightError
from tuner.records import Source

MakeMeter = Callable[..., NvmlMeter]


def next_reading(meter: NvmlMeter, within_s: float = 3.0) -> PowerReading:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        reading = meter.read(time.monotonic())
        if reading is not None:
            return reading
        time.sleep(0.005)
    raise AssertionError("no reading")


def test_no_driver_no_meter(standin: Standin) -> None:
    standin.fail("nvmlInit", DRIVER_NOT_LOADED)
    assert nvml_meter() is None


def test_gpus_are_summed_and_stamped(standin: Standin, meter: MakeMeter) -> None:
    standin.device(0).constant(100)
    standin.device(1).constant(250)
    standin.device(1).set(max_sm_mhz=1080)
    began_s = time.monotonic()
    one = meter()
    as_meter: Meter = one
    assert as_meter.gpu == "2 x NVIDIA H100 80GB HBM3"
    assert (as_meter.driver, as_meter.source) == ("575.57.08", Source.MEASURED)
    reading = next_reading(one)
    assert reading.power_w == 350
    assert reading.sm_clock_mhz == (1980 + 1080) / 2
    assert began_s <= reading.time_s <= time.monotonic()
    errors_j = []
    for _ in range(5):  # in the middle of one the process may be put aside
        reading = next_reading(one)
        true_j = sum(standin.device(i).energy_j(reading.time_s) for i in (0, 1))
        errors_j.append(abs(reading.energy_j - true_j))
    assert min(errors_j) < 3.0


def test_names_of_different_gpus_are_listed(standin: Standin, meter: MakeMeter) -> None:
    standin.device(1).set(name=b"NVIDIA RTX A6000")
    assert meter().gpu == "NVIDIA H100 80GB HBM3, NVIDIA RTX A6000"


def test_only_the_visible_gpus_are_read(
    standin: Standin, meter: MakeMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.device(0).constant(100)
    standin.device(1).constant(250)
    assert next_reading(meter(1)).power_w == 100
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", standin.device(1).uuid[:12])
    one = meter()
    assert one.uuids == (standin.device(1).uuid,)
    assert next_reading(one).power_w == 250
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert nvml_meter() is None


def test_a_sample_is_returned_once_and_reading_does_not_wait(
    standin: Standin, meter: MakeMeter
) -> None:
    one = meter(period_s=30)
    next_reading(one)
    began_s = time.monotonic()
    assert all(one.read(time.monotonic()) is None for _ in range(1000))
    assert time.monotonic() - began_s < 30.0


def test_samples_come_at_ten_hertz(standin: Standin, meter: MakeMeter) -> None:
    """And fewer where the machine is busy."""
    one = meter()
    end_s = next_reading(one).time_s + 1.0
    start_s = time.monotonic()
    while (newest := next_reading(one)).time_s < end_s:
        pass
    timeline = one.device_timeline(start_s, end_s)
    assert timeline.times_s[0] <= start_s
    assert newest.time_s >= timeline.times_s[-1] >= end_s
    assert 2 <= timeline.times_s.size <= 13


def test_energy_comes_from_every_sample_not_from_those_that_were_read(
    standin: Standin, meter: MakeMeter
) -> None:
    standin.device(0).constant(100)
    standin.device(1).constant(250)
    one = meter(period_s=0.02)
    start_s = next_reading(one).time_s
    time.sleep(0.4)  # the event loop is late
    timeline = one.timeline(start_s, next_reading(one).time_s)
    assert timeline.times_s.size >= 10
    assert timeline.power_w.tolist() == [350.0] * timeline.times_s.size
    assert timeline.source is Source.MEASURED
    assert timeline.sm_clock_mhz is not None


def test_the_timeline_has_a_column_per_gpu(standin: Standin, meter: MakeMeter) -> None:
    standin.device(1).set(idle_sm_mhz=1200, temperature_c=71, event_reasons=0x20)
    standin.device(0).fail("nvmlDeviceGetCurrentClocksEventReasons", NOT_SUPPORTED)
    one = meter(period_s=0.02)
    start_s = time.monotonic()
    time.sleep(0.3)
    timeline = one.device_timeline(start_s, start_s + 0.2)
    assert timeline.uuids == one.uuids
    assert timeline.sm_clock_mhz[-1].tolist() == [1980, 1200]
    assert timeline.temperature_c[-1].tolist() == [45, 71]
    assert timeline.event_reasons[-1][1] == 0x20
    assert np.isnan(timeline.event_reasons[-1][0])
    assert (np.diff(timeline.energy_j, axis=0) > 0).all()


def test_without_instant_power_the_average_is_used(standin: Standin, meter: MakeMeter) -> None:
    for index in (0, 1):
        standin.device(index).fail("nvmlDeviceGetFieldValues", NOT_SUPPORTED)
    assert next_reading(meter(1)).power_w == pytest.approx(300, abs=1)


@pytest.mark.parametrize(
    "functions",
    [
        ["nvmlDeviceGetTotalEnergyConsumption"],
        ["nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage"],
    ],
)
def test_a_gpu_without_a_counter_is_refused(standin: Standin, functions: list[str]) -> None:
    for function in functions:
        standin.device(1).fail(function, NOT_SUPPORTED)
    with pytest.raises(PreflightError, match="no energy counter"):
        nvml_meter()


def test_a_gpu_split_by_mig_is_refused(standin: Standin) -> None:
    standin.device(1).set(mig_mode=1)
    with pytest.raises(PreflightError, match="split by MIG"):
        nvml_meter()


def fails_soon(meter: NvmlMeter, message: str) -> None:
    end_s = time.monotonic() + 5
    with pytest.raises(OperatorNeededError, match=message) as caught:
        while time.monotonic() < end_s:
            meter.read(time.monotonic())
            time.sleep(0.02)
    assert caught.value.exit_code == 5


def test_a_lost_gpu_while_sampling(standin: Standin, meter: MakeMeter) -> None:
    one = meter()
    next_reading(one)
    standin.device(1).fail("nvmlDeviceGetTotalEnergyConsumption", GPU_IS_LOST)
    fails_soon(one, "GPU is lost")
    with pytest.raises(OperatorNeededError, match="GPU is lost"):
        one.states()
    tried = standin.device(1).calls("nvmlDeviceGetTotalEnergyConsumption")
    time.sleep(0.25)
    assert standin.device(1).calls("nvmlDeviceGetTotalEnergyConsumption") == tried


def test_an_error_that_passes_costs_the_window_and_nothing_else(
    standin: Standin, meter: MakeMeter
) -> None:
    one = meter()
    next_reading(one)
    context = WindowContext(one.states(), own_pids=(), power_limit_w=None)
    start_s = time.monotonic()
    time.sleep(0.2)
    standin.device(1).fail("nvmlDeviceGetTotalEnergyConsumption", UNKNOWN)
    time.sleep(0.25)
    standin.device(1).mend()
    next_reading(one)
    end_s = time.monotonic()
    next_reading(one)
    spoilt = one.judge(start_s, end_s, context)
    assert spoilt.reasons == ("a sample of the energy counter is missing",)
    start_s = time.monotonic()
    next_reading(one)
    end_s = time.monotonic()
    next_reading(one)
    assert one.judge(start_s - 0.02, end_s, context).valid


class Unwell:
    """A GPU whose readings fail as they are told to."""

    uuid = "GPU-0"

    def __init__(self, *codes: int) -> None:
        self._codes = iter(codes)

    def sample(self) -> tuple[float, ...]:
        if code := next(self._codes):
            raise NvmlFaultError(FAULTS[code], f"energy: error {code}")
        return (1.0, 2.0, 3.0, 4.0, 5.0)


def sampler_of(device: Unwell, monkeypatch: pytest.MonkeyPatch) -> tuple[Sampler, RingReader]:
    monkeypatch.setattr(agent, "LASTS_S", 0.02)
    descriptor = create_ring_file()
    reader = RingReader(descriptor, 1)
    return Sampler([device], RingWriter(descriptor, 1), 0.015), reader  # type: ignore[list-item]


def take(sampler: Sampler) -> None:
    time.sleep(sampler.wait_s())
    sampler.sample()


def test_an_error_that_lasts_ends_the_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, ring = sampler_of(Unwell(0, UNKNOWN, 0, UNKNOWN, UNKNOWN, UNKNOWN), monkeypatch)
    for _ in range(5):
        take(sampler)
    assert [row[1] > 0 for row in ring.since(0.0)] == [True, False, True, False, False]
    with pytest.raises(NvmlFaultError, match="energy: error 999, for ") as caught:
        take(sampler)
    assert caught.value.fault is NvmlFault.BROKEN


def test_samples_are_rarer_where_they_cost_more(standin: Standin, meter: MakeMeter) -> None:
    for i in range(2):
        standin.device(i).set(counter_read_s=0.012)
    one = meter()
    next_reading(one)
    start_s = time.monotonic()
    time.sleep(1.5)
    times_s = one.device_timeline(start_s, time.monotonic()).times_s
    assert np.median(np.diff(times_s)) >= 0.19  # 24 ms each, at most a fifth of the time


def test_a_gpu_that_hangs_while_sampling(standin: Standin, meter: MakeMeter) -> None:
    one = meter(deadline_s=0.5)
    next_reading(one)
    standin.device(1).hang("nvmlDeviceGetTemperature")
    fails_soon(one, "has not answered NVML for")


def test_a_sampler_that_was_killed(standin: Standin, meter: MakeMeter) -> None:
    one = meter()
    os.kill(one._agent.pid, signal.SIGKILL)
    fails_soon(one, "ended unexpectedly")


def test_states_are_in_the_order_of_the_meter(
    standin: Standin, meter: MakeMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    one = meter()
    assert [state.uuid for state in one.states()] == list(one.uuids)
    assert one.uuids == (standin.device(1).uuid, standin.device(0).uuid)


def test_a_meter_that_is_dropped_ends_its_process(standin: Standin) -> None:
    one = nvml_meter()
    assert one is not None
    pid = one._agent.pid
    del one
    gc.collect()
    assert ends(pid, within_s=2)
