"""`kill -9` of the tuner, of its guardian and of both while a study changes a (stand-in) GPU."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.guarding import await_gone, is_gone, kill
from helpers.standin_study import StandinStudy, standin_study
from helpers.studies import wait_for

PHASES = ("set", "measure", "restore")
SEEDS = range(20)  # each phase is met at six or seven of them


@pytest.fixture
def study(tmp_path: Path) -> Iterator[StandinStudy]:
    with standin_study(tmp_path) as made:
        yield made


def started(study: StandinStudy) -> tuple[subprocess.Popen[str], int]:
    """Start the study; return its process and its guardian's pid."""
    # so that some kills fall between what is written down and what is set
    for name in ("nvmlDeviceSetPowerManagementLimit", "nvmlDeviceSetGpuLockedClocks"):
        study.standin.device(0).delay(name, 0.03)
    process = study.tuner.start(*study.whole_run())
    until(process, lambda: study.owner() is not None and study.guardian_pid() is not None)
    guardian = study.guardian_pid()
    assert guardian is not None
    return process, guardian


def until(process: subprocess.Popen[str], condition: object) -> None:
    wait_for(lambda: process.poll() is not None or condition(), 40)  # type: ignore[operator]
    assert process.poll() is None, process.communicate()


def at_an_instant(study: StandinStudy, process: subprocess.Popen[str], seed: int) -> None:
    """Wait for an instant in the phase of the seed."""
    chance = random.Random(seed)
    phase = PHASES[seed % len(PHASES)]
    if phase == "set":  # before and during each of the first settings, or between two of them
        settings = chance.randint(1, 16)
        until(process, lambda: study.settings() >= settings)
        time.sleep(chance.uniform(0.0, 0.06))
        return
    until(process, study.has_launched)
    time.sleep(chance.uniform(0.0, 4.0))
    if phase == "restore" and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(chance.uniform(0.0, 1.0))


def assert_all_is_put_back(study: StandinStudy) -> None:
    assert study.left() == []
    assert study.settings() > 0
    study.assert_store_is_whole()


def kill_the_tuner(study: StandinStudy, seed: int) -> None:
    process, guardian = started(study)
    at_an_instant(study, process, seed)
    process.kill()
    process.communicate()
    await_gone(guardian, deadline_s=40)
    assert_all_is_put_back(study)


def kill_the_guardian(study: StandinStudy, seed: int) -> None:
    process, guardian = started(study)
    at_an_instant(study, process, seed)
    if not is_gone(guardian):
        kill(guardian)
    _, errors = process.communicate(timeout=40)
    expected = (5, 143) if PHASES[seed % 3] == "restore" else (5,)
    assert process.returncode in expected, errors
    assert "Traceback" not in errors
    assert_all_is_put_back(study)


def kill_both(study: StandinStudy, seed: int) -> None:
    process, guardian = started(study)
    at_an_instant(study, process, seed)
    pids = [guardian, process.pid] if seed % 2 else [process.pid, guardian]
    for pid in pids:
        if not is_gone(pid):
            kill(pid)
    process.communicate()
    await_gone(guardian)
    words = ["resume", "night"] if study.is_stored() else study.whole_run()
    again = study.tuner.start(*words)
    until(again, lambda: study.guardian_pid() not in (None, guardian))  # it repairs before that
    again.send_signal(signal.SIGTERM)
    _, errors = again.communicate(timeout=60)
    assert again.returncode == 143, errors
    assert_all_is_put_back(study)


@pytest.mark.chaos
def test_a_tuner_killed_in_the_middle_of_a_measurement(study: StandinStudy) -> None:
    kill_the_tuner(study, 1)


@pytest.mark.chaos
def test_a_guardian_killed_while_limits_are_set(study: StandinStudy) -> None:
    kill_the_guardian(study, 0)


@pytest.mark.night
def test_both_killed_while_limits_are_put_back(study: StandinStudy) -> None:
    kill_both(study, 2)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("killed", [kill_the_tuner, kill_the_guardian, kill_both])
def test_a_kill_at_any_instant(study: StandinStudy, killed: object, seed: int) -> None:
    killed(study, seed)  # type: ignore[operator]
