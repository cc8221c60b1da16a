"""Nights on a machine whose servers, GPU and neighbours misbehave: each ends whole, or says why."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.chaos.harness import Night, night_in
from helpers.guarding import kill
from helpers.studies import CommandLine, wait_for

from tuner.store import Store

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
    told = {"crash": "vLLM ended with code 1", "freeze": "not one token"}[fault]
    assert all(re.search(told, failure.reason) for failure in failures), failures
    assert_seen_in_the_morning(night, "retry", told)


def assert_seen_in_the_morning(night: Night, kind: str, why: str) -> None:
    """A fault is in the study's log, in the events of the store, and in the report."""
    (log,) = night.machine.tuner.folder.rglob("study.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(re.search(why, str(line["facts"].get("reason"))) for line in lines)
    with Store.open(night.machine.tuner.store_path, create=False) as store:
        events = [event for event in store.events("night") if event.kind == kind]
    assert any(re.search(why, event.message) for event in events), events
    made = night.machine.tuner("report", "night", "-o", "night.html")
    assert made.returncode == 0, made.stderr
    report = (night.machine.tuner.folder / "night.html").read_text()
    assert re.search(why, report) and kind in report


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


def disturbed(night: Night, disturb: Callable[[], None], why: str) -> None:
    """Disturb a night's measurements until one is thrown away for it, then let it go on."""
    process = night.start()
    night.await_measurements(process)

    def is_noticed() -> bool:
        disturb()
        rows = night.machine.tuner.trials("night")
        return any(row.failure and re.search(why, row.failure.reason) for row in rows)

    wait_for(lambda: process.poll() is not None or is_noticed(), 100)
    assert process.poll() is None, f"nobody noticed: {process.communicate()}"
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    night.assert_complete(retries=RETRIES)


def test_a_limit_that_somebody_else_sets_back(night: Night, undisturbed: object) -> None:
    device = night.machine.standin.device(0)

    def set_back() -> None:
        device.set(limit_mw=610_000, enforced_mw=610_000)

    disturbed(night, set_back, "enforced power limit")
    assert night.front() == undisturbed


def test_a_counter_that_jumps_back(night: Night, undisturbed: object) -> None:
    disturbed(night, night.machine.standin.device(0).reset_counter, "went back|moved by -")
    assert night.front() == undisturbed


def test_nvml_that_hangs_stops_the_night_until_it_is_mended(night: Night) -> None:
    device = night.machine.standin.device(0)
    process = night.start()
    night.await_measurements(process)
    for function in ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceSetPowerManagementLimit"):
        device.hang(function)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 5, errors
    told = "does not answer|has not answered|guardian.log"
    assert re.search(told, errors) and "Traceback" not in errors
    assert_seen_in_the_morning(night, "stopped", told)
    device.mend()
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete(retries=RETRIES)


def test_a_second_tuner_on_the_gpu_is_kept_out_whatever_its_state_folder(
    night: Night, tmp_path: Path
) -> None:
    process = night.start()
    night.await_measurements(process)
    other = tmp_path / "other"
    other.mkdir()
    environment = {**night.machine.tuner.environment, "TUNER_STATE_DIR": str(other / "state")}
    words = night.machine.run_words(*night.space(), "--allow-gpu-settings", "--trials", "1")
    second = CommandLine(other, environment)(*words)
    assert second.returncode == 3, second.stderr
    assert f"in use by another tuner (process {process.pid})" in second.stderr
    assert list((other / "state").rglob("*.json")) == []  # nothing was taken
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    night.assert_complete()


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
