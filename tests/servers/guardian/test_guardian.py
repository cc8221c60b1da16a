from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from helpers.guarding import (
    Machine,
    await_gone,
    is_gone,
    kill,
    kill_both,
    kill_the_guardian,
    kill_the_tuner,
    machine_in,
)
from helpers.victim import start_server

from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.limit_control import Access
from tuner.devices.open import open_limits, opened_limits
from tuner.errors import OperatorNeededError, PreflightError
from tuner.host.process import this_owner
from tuner.host.process_stat import process_stat
from tuner.servers.guardian import guardian as guardian_module
from tuner.servers.guardian.guardian import guarded, repair
from tuner.servers.guardian.guardian_process import CLEAN
from tuner.servers.guardian.run_records import register, registered
from tuner.servers.processes import RUN_TAG, tag_environment, tagged_processes, wait_until

NO_GPUS = partial(opened_limits, Access.SET)  # there is no driver outside a machine


@pytest.fixture
def machine(tmp_path: Path, run_tag: str) -> Iterator[Machine]:
    with machine_in(tmp_path, run_tag) as found:
        yield found


def options(machine: Machine) -> dict:
    return {"log_path": machine.folder / "guardian.log", "state_folder": machine.state}


@pytest.mark.parametrize("seed", range(2))
def test_the_tuner_is_killed(machine: Machine, seed: int) -> None:
    other = subprocess.Popen(
        ["sleep", "60"], env={**os.environ, **tag_environment(machine.run_tag + "-other", "")}
    )
    try:
        kill_the_tuner(machine, seed)
        assert other.poll() is None  # the server of another run
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("seed", range(2))
def test_the_guardian_is_killed(machine: Machine, seed: int) -> None:
    kill_the_guardian(machine, seed)


@pytest.mark.parametrize("seed", range(2))
def test_both_are_killed(machine: Machine, seed: int) -> None:
    kill_both(machine, seed)


def test_a_normal_end(machine: Machine) -> None:
    victim = machine.start(cycles=2)
    guardian = machine.guardian_of(victim)
    assert victim.wait() == 0
    assert is_gone(guardian)  # it is waited for
    machine.assert_clean()
    assert "nothing of the run is left" in machine.log
    assert "cleaning up" not in machine.log


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_everybody(machine: Machine, number: signal.Signals, code: int) -> None:
    victim = machine.start(measure_s=30)
    guardian = machine.guardian_of(victim)
    victim.until("measure")
    for pid in (guardian, victim.process.pid):  # as systemd does, or a terminal without job control
        os.kill(pid, number)
    assert victim.wait() == code
    assert is_gone(guardian)
    machine.assert_clean()
    assert "cleaning up" not in machine.log


def test_a_hang_up_of_the_session(machine: Machine) -> None:
    victim = machine.start(measure_s=30)
    guardian = machine.guardian_of(victim)
    victim.until("measure")
    assert machine.standin.device(1).limit_w == 300.0
    assert os.getsid(guardian) == guardian
    os.kill(guardian, signal.SIGHUP)
    os.killpg(victim.process.pid, signal.SIGHUP)
    assert victim.wait() == 128 + signal.SIGHUP
    await_gone(guardian)
    machine.assert_clean()


def test_a_child_that_holds_the_pipe_open(machine: Machine) -> None:
    victim = machine.start(measure_s=30, fork=True)
    guardian = machine.guardian_of(victim)
    holder = int(victim.until("holder"))
    machine.pids.append(holder)
    victim.until("measure")
    kill(victim.process.pid)
    await_gone(guardian, deadline_s=10)
    assert not is_gone(holder)
    kill(holder)
    machine.assert_clean()


def children_of(parent: int) -> list[int]:
    """Return them as a job runner finds them: by the parent of every process."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    stats = {pid: process_stat(pid) for pid in pids}
    return [pid for pid, stat in stats.items() if stat is not None and stat.parent_pid == parent]


def test_a_job_runner_that_kills_all_children(machine: Machine) -> None:
    victim = machine.start(measure_s=30)
    guardian = machine.guardian_of(victim)
    victim.until("measure")
    assert machine.standin.device(1).limit_w == 300.0
    assert os.getsid(guardian) == guardian
    children = children_of(victim.process.pid)
    assert children  # the server and the process that talks to NVML
    kill(*children, victim.process.pid)
    assert not is_gone(guardian)
    await_gone(guardian)
    machine.assert_clean()
    assert "the tuner has gone without a word" in machine.log


def test_a_runner_that_kills_its_children_and_lives_on(machine: Machine) -> None:
    victim = machine.start(measure_s=2)
    guardian = machine.guardian_of(victim)
    victim.until("measure")
    kill(*children_of(victim.process.pid))
    victim.wait()
    await_gone(guardian)
    machine.assert_clean()


async def test_children_that_nobody_may_wait_for(machine: Machine) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as in some workers of Ray
    try:
        async with guarded(machine.run_tag, **options(machine)) as guardian:
            assert guardian.alive()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert await guardian.wait_gone() == CLEAN
    machine.assert_clean()


def test_device_memory_is_waited_for(machine: Machine) -> None:
    device = machine.standin.device(1)
    before = device.get("memory_used_bytes")
    victim = machine.start(measure_s=30)
    guardian = machine.guardian_of(victim)
    victim.until("measure")
    device.set(memory_used_bytes=before + 2**30)
    kill(victim.process.pid)
    assert wait_until(lambda: "stopped" in machine.log, 10)
    time.sleep(0.5)
    assert not is_gone(guardian)
    assert len(LeaseBook(machine.state).entries()) == 2
    device.set(memory_used_bytes=before)
    await_gone(guardian)
    machine.assert_clean()
    assert "still holds" not in machine.log


def test_memory_that_stays_taken_does_not_keep_the_limits(machine: Machine) -> None:
    victim = machine.start(measure_s=30, deadline_s=0.5, knows_memory=False)
    guardian = machine.guardian_of(victim)
    victim.until("measure")
    machine.standin.device(1).set(memory_used_bytes=40 * 2**30)
    kill(victim.process.pid)
    await_gone(guardian, deadline_s=10)
    machine.assert_clean()
    assert "still holds more memory" in machine.log


async def test_what_the_block_left_is_cleaned_up(machine: Machine, monkeypatch) -> None:
    for name, value in machine.standin.environment().items():
        monkeypatch.setenv(name, value)
    control = open_limits(Access.SET)
    assert control is not None
    book = LeaseBook(machine.state)
    async with guarded(machine.run_tag, **options(machine)) as guardian:
        assert guardian.alive()
        assert len(registered(machine.state)) == 1
        lease = book.take(control, machine.standin.device(0).uuid, this_owner(machine.run_tag))
        book.set_limits(control, lease, power_limit_w=250.0, sm_clock_mhz=None)
        server = start_server(machine.run_tag, machine.folder / "up")
    control.close()
    server.wait()
    assert not guardian.alive()
    assert await guardian.wait_gone() == CLEAN
    assert "the tuner is done but left something" in machine.log
    machine.assert_clean()


async def test_an_error_passes_through(machine: Machine) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with guarded(machine.run_tag, **options(machine)) as guardian:
            raise ValueError("mine")
    assert not guardian.alive()
    machine.assert_clean()


async def test_a_killed_guardian_is_noticed_at_once(machine: Machine) -> None:
    cleaned = []
    with pytest.raises(OperatorNeededError, match="was ended"):
        async with guarded(machine.run_tag, **options(machine)) as guardian:
            kill(guardian.pid)
            began_s = time.monotonic()
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0.01)  # the block's clean-up is not cut short
                cleaned.append(time.monotonic() - began_s)
    (elapsed_s,) = cleaned
    assert elapsed_s < 30.0
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    machine.assert_clean()


async def test_a_cancellation_from_outside_stays_one(machine: Machine) -> None:
    async def work() -> None:
        async with guarded(machine.run_tag, **options(machine)):
            inside.set()
            await asyncio.sleep(30)

    inside = asyncio.Event()
    task = asyncio.ensure_future(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    machine.assert_clean()


def proc_file(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


async def test_a_guardian_is_small_and_bears_no_tag(machine: Machine, monkeypatch) -> None:
    for name, value in tag_environment(machine.run_tag, "launch").items():
        monkeypatch.setenv(name, value)
    async with guarded(machine.run_tag, gpu_memory_bytes={}, **options(machine)) as guardian:
        assert wait_until(lambda: "watches over" in machine.log, 5)
        assert tagged_processes(machine.run_tag) == ()
        assert RUN_TAG not in proc_file(guardian.pid, "environ")
        status = dict(line.split(":", 1) for line in proc_file(guardian.pid, "status").splitlines())
        assert int(status["VmHWM"].split()[0]) < 40_000


def test_a_guardian_imports_nothing_heavy() -> None:
    heavy = "numpy asyncio aiohttp pynvml optuna sqlalchemy pydantic psutil"
    script = (
        "import sys, tuner.servers.guardian.guardian_process\n"
        f"print(*(name for name in {heavy.split()} if name in sys.modules))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []


async def test_a_guardian_that_does_not_start(machine: Machine, monkeypatch) -> None:
    monkeypatch.setattr(guardian_module, "_PROCESS", "tuner.serving.no_such_module")
    with pytest.raises(PreflightError, match=r"did not start .*guardian\.log"):
        async with guarded(machine.run_tag, **options(machine)):
            pytest.fail("began")
    assert "no_such_module" in machine.log
    machine.assert_clean()


async def test_a_guardian_that_never_gets_ready(machine: Machine, monkeypatch) -> None:
    monkeypatch.setattr(guardian_module, "_START_DEADLINE_S", 0.0)
    with pytest.raises(PreflightError, match="did not start within 0 s"):
        async with guarded(machine.run_tag, **options(machine)):
            pytest.fail("began")
    machine.assert_clean()


async def test_a_log_that_cannot_be_written(machine: Machine) -> None:
    (machine.folder / "file").touch()
    log_path = machine.folder / "file" / "guardian.log"
    with pytest.raises(PreflightError, match="cannot be started"):
        async with guarded(machine.run_tag, log_path=log_path, state_folder=machine.state):
            pytest.fail("began")
    machine.assert_clean()


async def test_a_full_disk_before_anything_is_started(machine: Machine) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(PreflightError, match="nothing was started"):
            async with guarded(machine.run_tag, **options(machine)):
                pytest.fail("began")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert machine.log == ""
    machine.assert_clean()


def test_repair_leaves_the_living_and_other_machines_alone(machine: Machine) -> None:
    mine = this_owner("mine")
    register(machine.state, mine)
    register(machine.state, replace(mine, run_tag="far", host="far", boot_id="far"))
    register(machine.state, replace(mine, run_tag="old", boot_id="old"))
    (machine.state / "runs" / "torn.json").write_text("{")
    assert repair(machine.state, NO_GPUS) == []
    assert {owner.run_tag for owner in registered(machine.state)} == {"mine", "far"}


def test_repair_of_nothing(tmp_path: Path) -> None:
    assert repair(tmp_path / "none", NO_GPUS) == []
    assert list(tmp_path.iterdir()) == []
