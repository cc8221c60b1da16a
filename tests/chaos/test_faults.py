"""Nights on a machine whose servers, GPU and neighbours misbehave: each ends whole, or says why."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos.harness import Night, night_in
from studies import wait_for

from tuner.records import Measurement

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
TRIALS = 4
RETRIES = 3 * TRIALS


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    with night_in(tmp_path, TRIALS) as found:
        yield found


def first_measurement(night: Night, process: subprocess.Popen[str]) -> None:
    def is_there() -> bool:
        rows = night.machine.tuner.trials("night")
        return any(isinstance(row.measurement, Measurement) for row in rows)

    wait_for(lambda: process.poll() is not None or is_there(), 200)
    assert process.poll() is None, process.communicate()


def ended(night: Night) -> list[int]:
    """Every trial came to a result, and nothing is left; return the measured ones."""
    night.assert_clean()
    rows = night.machine.tuner.trials("night")
    assert all(row.measurement is not None or row.failure is not None for row in rows)
    return [row.number for row in rows if row.measurement is not None]


def test_servers_that_crash_at_random_steps(night: Night) -> None:
    night.be_served_with("crash", 0.5)
    code, errors = night.run()
    assert code in (0, 3, 5), errors  # 3: not even the default could be started
    assert "Traceback" not in errors
    ended(night)


def test_servers_that_freeze_and_say_that_they_are_well(night: Night) -> None:
    night.be_served_with("freeze", 0.4)
    code, errors = night.run()
    assert code in (0, 5), errors
    assert "Traceback" not in errors
    assert ended(night)


def test_servers_that_ignore_sigterm(night: Night) -> None:
    night.be_served_with("stubborn", 1.0)
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete(retries=RETRIES)


def test_workers_in_sessions_of_their_own_that_hold_the_port(night: Night) -> None:
    night.be_served_with("setsid", 1.0)
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete(retries=RETRIES)


def disturbed(night: Night, disturb: Callable[[], None]) -> None:
    """Disturb the first measurements of a night, then let it go on."""
    process = night.start()
    first_measurement(night, process)
    for _ in range(3):
        time.sleep(0.7)
        disturb()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    night.assert_complete(retries=RETRIES)


def test_a_limit_that_somebody_else_sets_back(night: Night) -> None:
    device = night.machine.standin.device(0)
    disturbed(night, lambda: device.set(limit_mw=610_000, enforced_mw=610_000))


def test_a_counter_that_jumps_back(night: Night) -> None:
    disturbed(night, night.machine.standin.device(0).reset_counter)


def test_nvml_that_hangs_stops_the_night_until_it_is_mended(night: Night) -> None:
    device = night.machine.standin.device(0)
    process = night.start()
    first_measurement(night, process)
    for function in ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceSetPowerManagementLimit"):
        device.hang(function)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 5, errors
    assert "does not answer" in errors or "has not answered" in errors or "guardian.log" in errors
    assert "Traceback" not in errors
    device.mend()
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete(retries=RETRIES)


def test_two_tuners_on_one_study(night: Night) -> None:
    process = night.start()
    first_measurement(night, process)
    code, errors = night.run()
    assert code == 3
    assert f"is being run by process {process.pid}" in errors
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 143, errors
    night.assert_clean()
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete(retries=1)
