import functools
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.emulator.device_file import (
    AVERAGE_S,
    POINTS,
    UPDATE_S,
    Device,
    DeviceBusyError,
    DeviceFile,
    Facts,
    Settings,
)

FACTS = Facts("H100-SXM", 700.0, 200.0, 700.0, 345, 1980, 15, 80 * 2**30, 70.0)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[DeviceFile]:
    made = DeviceFile.create(tmp_path / "gpus", FACTS, 2)
    yield made
    made.close()


@pytest.fixture
def device(file: DeviceFile) -> Device:
    return file.devices[1]


def test_what_is_set_in_one_mapping_is_seen_in_another(file: DeviceFile, tmp_path: Path) -> None:
    other = DeviceFile(tmp_path / "gpus")
    assert [d.facts for d in other.devices] == [FACTS] * 2
    assert len({d.uuid for d in [*file.devices, *other.devices]}) == 2
    assert other.devices[1].settings == Settings(700.0, None)
    file.devices[1].set(Settings(412.5, 1200))
    assert other.devices[1].settings == Settings(412.5, 1200)
    assert other.devices[0].settings == Settings(700.0, None)
    file.devices[1].set(Settings(700.0, None))
    assert other.devices[1].settings == Settings(700.0, None)


def test_settings_that_it_cannot_have_are_brought_within_what_it_can(device: Device) -> None:
    device.set(Settings(5.0, 9000))
    assert device.settings == Settings(200.0, 1980)
    device.set(Settings(9000.0, 1))
    assert device.settings == Settings(700.0, 345)


@pytest.mark.parametrize("content", [b"", b"tunerGP1", b"x" * 5000, b"tunerGP1" + b"\1" * 56])
def test_another_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"no file of emulated GPUs|empty"):
        DeviceFile(path)


def test_with_nothing_on_it_it_draws_idle_power(device: Device) -> None:
    now_s = time.monotonic()
    for over_s in (UPDATE_S, AVERAGE_S):
        assert device.mean_power_w(now_s, over_s) == pytest.approx(70.0)
        assert device.mean_power_w(now_s + 9, over_s) == pytest.approx(70.0)
    assert device.energy_j(now_s + 10) - device.energy_j(now_s) == pytest.approx(700)
    assert device.busy_s(now_s + 10) == 0
    assert (device.pid, device.memory_used_bytes) == (None, 0)


@given(st.lists(st.tuples(st.floats(1e-4, 2.0), st.floats(50, 700)), min_size=1, max_size=60))
def test_energy_is_the_integral_of_power(steps: list[tuple[float, float]]) -> None:
    """Steps of known power; the energy between any two instants is what they drew."""
    path = Path(f"/tmp/test-device-file-{os.getpid()}")
    file = DeviceFile.create(path, FACTS, 1)
    device, start_s = file.devices[0], time.monotonic() + 1
    end_s, energy_j = start_s, device.energy_j(start_s)
    device.add(end_s, energy_j, 0.0, 100.0)
    for length_s, power_w in steps:
        begin_s, begin_j = end_s, energy_j
        end_s, energy_j = end_s + length_s, energy_j + length_s * power_w
        device.add(end_s, energy_j, end_s - start_s, 100.0)
        middle_s = (begin_s + end_s) / 2
        assert device.energy_j(middle_s) == pytest.approx((begin_j + energy_j) / 2)
    assert device.energy_j(end_s + 2) == pytest.approx(energy_j + 200)
    assert device.mean_power_w(end_s + 2, AVERAGE_S) == pytest.approx(100)
    assert device.busy_s(end_s + 2) == pytest.approx(end_s - start_s)
    grid = [start_s + i * (end_s - start_s) / 500 for i in range(501)]
    read = [device.energy_j(t) for t in grid]
    assert read == sorted(read)
    file.close()
    path.unlink()


def test_the_power_reading_is_the_mean_of_a_second_and_changes_ten_times_in_one(
    device: Device,
) -> None:
    start_s = math.ceil(time.monotonic())
    device.add(start_s, device.energy_j(start_s), 0.0, 70.0)
    device.add(start_s + 3, device.energy_j(start_s) + 3 * 500, 3.0, 70.0)
    at = functools.partial(device.mean_power_w, over_s=AVERAGE_S)
    assert at(start_s + 0.52) == pytest.approx((0.5 * 70) + (0.5 * 500))
    assert at(start_s + 0.58) == at(start_s + 0.52)
    assert at(start_s + 2) == pytest.approx(500)
    assert at(start_s + 3.25) == pytest.approx(0.8 * 500 + 0.2 * 70)
    assert device.mean_power_w(start_s + 0.12, UPDATE_S) == pytest.approx(500)
    assert device.mean_power_w(start_s + 3.12, UPDATE_S) == pytest.approx(70)


def test_the_temperature_is_the_one_in_balance_with_the_power(tmp_path: Path) -> None:
    warm = replace(FACTS, coolant_c=38.0, kelvin_per_w=0.025)
    made = DeviceFile.create(tmp_path / "warm", warm, 1)
    device, start_s = made.devices[0], math.ceil(time.monotonic())
    assert device.facts == warm
    device.add(start_s, device.energy_j(start_s), 0.0, 70.0)
    device.add(start_s + 3, device.energy_j(start_s) + 3 * 600, 3.0, 70.0)
    assert device.temperature_c(start_s + 2) == pytest.approx(38.0 + 15.0, abs=0.1)
    assert device.temperature_c(start_s + 9) == pytest.approx(38.0 + 1.75)
    made.close()


def test_what_is_older_than_all_points_is_at_the_oldest(device: Device) -> None:
    start_s = time.monotonic()
    for i in range(2 * POINTS):
        device.add(start_s + i, 300.0 * i, float(i), 70.0)
    assert device.energy_j(start_s + 2 * POINTS - 1) == 300.0 * (2 * POINTS - 1)
    assert device.energy_j(start_s + POINTS + 10.5) == 300.0 * (POINTS + 10.5)
    assert device.energy_j(start_s) == pytest.approx(300.0 * POINTS, abs=600)


def test_one_server_at_a_time_and_a_dead_one_is_gone(device: Device) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    device.take(other.pid, 60 * 2**30)
    assert (device.pid, device.memory_used_bytes) == (other.pid, 60 * 2**30)
    with pytest.raises(DeviceBusyError, match=str(other.pid)):
        device.take(os.getpid(), 1)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
    assert (device.pid, device.memory_used_bytes) == (None, 0)
    device.take(os.getpid(), 1)
    assert device.pid == os.getpid()
    device.add(time.monotonic(), 1.0, 0.0, 120.0)
    device.leave()
    later_s = time.monotonic() + 1
    assert device.pid is None
    assert device.energy_j(later_s + 1) - device.energy_j(later_s) == pytest.approx(70.0)
    other.communicate()
