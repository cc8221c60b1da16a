"""Nights on a machine whose servers, GPU and neighbours misbehave: each ends whole, or says why."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos.harness import Night, night_in
from serving.guarding import kill

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
TRIALS = 4
RETRIES = 3 * TRIALS


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    with night_in(tmp_path, TRIALS) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The front of a night in which nothing went wrong."""
    with night_in(tmp_path_factory.mktemp("undisturbed"), TRIALS) as night:
        code, errors = night.run()
        assert code == 0, errors
        night.assert_complete()
        return night.front()


@pytest.mark.parametrize("fault", ["crash", "freeze"])
def test_servers_that_crash_or_freeze_at_random_steps(
    night: Night, fault: str, undisturbed: object
) -> None:
    night.be_served_with(fault)
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete(retries=RETRIES)
    assert night.front() == undisturbed
    failures = [row.failure for row in night.machine.tuner.trials("night") if row.failure]
    assert failures, "no server had the fault"
    told = {"crash": "vLLM ended with code 1", "freeze": "no token"}[fault]
    assert all(re.search(told, failure.reason) for failure in failures), failures


def test_servers_that_ignore_sigterm(night: Night) -> None:
    night.be_served_with("stubborn", always=True)
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete(retries=RETRIES)


def test_workers_in_sessions_of_their_own_that_hold_the_port(night: Night) -> None:
    night.be_served_with("setsid", always=True)
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete(retries=RETRIES)


def test_an_orphan_on_the_port_that_was_asked_for(night: Night) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody_elses:
        port = somebody_elses.getsockname()[1]
        night.options = ("--port", str(port))
        code, errors = night.run()
        assert code == 3 and f"port {port} on 127.0.0.1 cannot be used" in errors, errors
        assert "Traceback" not in errors and night.evaluations() == 0

    process = night.start()
    night.await_measurements(process)
    guardian = night.machine.guardian_pid()
    assert guardian is not None
    kill(guardian, process.pid)  # nobody is left to stop the server
    process.communicate()
    night.kills += 1
    with pytest.raises(OSError, match="in use"), socket.create_server(("127.0.0.1", port)):
        pass
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete()


def disturbed(night: Night, disturb: Callable[[], None]) -> None:
    """Disturb the first measurements of a night, then let it go on."""
    process = night.start()
    night.await_measurements(process)
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
    night.await_measurements(process)
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
    night.await_measurements(process)
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
