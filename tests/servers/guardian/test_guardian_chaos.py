"""The same kills as in `test_guardian.py` at many more instants, and what takes its time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.guarding import (
    FOUND_W,
    Machine,
    await_gone,
    kill,
    kill_both,
    kill_the_guardian,
    kill_the_tuner,
    machine_in,
    mend_here,
)
from helpers.victim import start_server

from tuner.errors import OperatorNeededError
from tuner.servers.processes import tagged_processes

pytestmark = pytest.mark.chaos
SEEDS = range(100, 120)


@pytest.fixture
def machine(tmp_path: Path, run_tag: str) -> Iterator[Machine]:
    with machine_in(tmp_path, run_tag) as found:
        yield found


@pytest.mark.parametrize("seed", SEEDS)
def test_the_tuner_is_killed(machine: Machine, seed: int) -> None:
    kill_the_tuner(machine, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_guardian_is_killed(machine: Machine, seed: int) -> None:
    kill_the_guardian(machine, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_are_killed(machine: Machine, seed: int) -> None:
    kill_both(machine, seed)


def test_a_driver_that_hangs(machine: Machine, monkeypatch) -> None:
    victim = machine.start(measure_s=30, deadline_s=0.5)
    guardian = machine.guardian_of(victim)
    victim.until("measure")
    machine.standin.device(0).hang("nvmlDeviceSetPowerManagementLimit")
    kill(victim.process.pid)
    await_gone(guardian, deadline_s=20)
    assert tagged_processes(machine.run_tag) == ()
    assert "gave up" in machine.log
    assert machine.standin.device(0).limit_w == 300.0
    assert machine.standin.device(1).limit_w == FOUND_W  # the other is not kept from it
    machine.standin.device(0).mend()
    mend_here(machine, monkeypatch)
    machine.assert_clean()


def test_a_stubborn_server_is_killed_and_its_worker_too(machine: Machine) -> None:
    victim = machine.start(measure_s=30)
    guardian = machine.guardian_of(victim)
    victim.until("measure")
    (machine.folder / "other").mkdir()
    server = start_server(machine.run_tag, machine.folder / "other" / "up", "stubborn")
    assert len(tagged_processes(machine.run_tag)) == 4
    kill(victim.process.pid)
    server.wait(30)
    await_gone(guardian)
    machine.assert_clean()


def test_no_permission_when_restoring(machine: Machine, monkeypatch) -> None:
    victim = machine.start(measure_s=30, deadline_s=0.5)
    guardian = machine.guardian_of(victim)
    victim.until("measure")
    machine.standin.device(0).deny_setting()
    kill(victim.process.pid)
    await_gone(guardian, deadline_s=20)
    assert [machine.standin.device(i).limit_w for i in (0, 1)] == [300.0, FOUND_W]
    assert "could not be put back to 610 W" in machine.log
    with pytest.raises(OperatorNeededError, match="could not be put back to 610 W"):
        mend_here(machine, monkeypatch)
    machine.standin.device(0).mend()
    assert len(mend_here(machine, monkeypatch)) == 1
    machine.assert_clean()
