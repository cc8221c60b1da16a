"""A machine for guardians: a stand-in NVML, a state folder, and victims to kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from helpers.nvml_standin.standin import Standin
from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.limit_control import Access
from tuner.devices.open import opened_limits
from tuner.servers.guardian.guardian import repair
from tuner.servers.guardian.run_records import registered
from tuner.servers.processes import stop_tagged, tagged_processes, wait_until

FOUND_W = 610.0  # neither the default nor anything that a victim sets
TESTS = Path(__file__).parents[1]


def is_gone(pid: int) -> bool:
    """Say whether it ended; whether its new parent has reaped it is not our business."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@dataclass(slots=True)
class Victim:
    """A running victim. `lines` is what it said so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def until(self, word: str) -> str:
        """Return the rest of the next line that begins with `word`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.startswith(word):
                return line.removeprefix(word).strip()
        errors = self.process.stderr.read() if self.process.stderr else ""
        raise AssertionError(f"the victim ended before '{word}': {self.lines} {errors}")

    def wait(self, deadline_s: float = 40.0) -> int:
        self.process.communicate(timeout=deadline_s)
        return self.process.returncode


@dataclass(slots=True)
class Machine:
    """The machine of one test. Everything started on it is ended with the test."""

    folder: Path
    standin: Standin
    run_tag: str
    victims: list[Victim] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> str:
        path = self.folder / "guardian.log"
        return path.read_text() if path.exists() else ""

    def start(self, **asked: object) -> Victim:
        argument = {"folder": str(self.folder), "run_tag": self.run_tag, **asked}
        process = subprocess.Popen(
            [sys.executable, str(TESTS / "helpers" / "victim.py"), json.dumps(argument)],
            env={**os.environ, **self.standin.environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        victim = Victim(process)
        self.victims.append(victim)
        self.pids.append(process.pid)
        return victim

    def guardian_of(self, victim: Victim) -> int:
        pid = int(victim.until("guardian"))
        self.pids.append(pid)
        return pid

    def end(self) -> None:
        for tag in (self.run_tag, self.run_tag + "-again"):
            stop_tagged(tag, grace_s=0)
        for pid in self.pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)
        for victim in self.victims:
            victim.process.communicate(timeout=10)

    def is_as_found(self) -> bool:
        devices = [self.standin.device(i) for i in range(2)]
        return all(d.limit_w == FOUND_W and d.locked_mhz is None for d in devices)

    def assert_clean(self) -> None:
        """Nothing runs, nothing is leased, and the GPUs are as they were found."""
        devices = [self.standin.device(i) for i in range(2)]
        assert [(d.limit_w, d.locked_mhz) for d in devices] == [(FOUND_W, None)] * 2, self.log
        assert LeaseBook(self.state).entries() == (), self.log
        assert tagged_processes(self.run_tag) == (), self.log
        assert registered(self.state) == (), self.log


@contextmanager
def machine_in(folder: Path, run_tag: str) -> Iterator[Machine]:
    standin = Standin.create(folder / "nvml.state", n_devices=2)
    for index in range(2):
        standin.device(index).set(limit_mw=round(FOUND_W * 1e3), enforced_mw=round(FOUND_W * 1e3))
    machine = Machine(folder, standin, run_tag)
    try:
        yield machine
    finally:
        machine.end()


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def at_a_seeded_instant(seed: int) -> None:
    """Let the victim go on for a while: several cycles and runs fit into the longest."""
    time.sleep(random.Random(seed).uniform(0.0, 1.0))


def await_gone(*pids: int, deadline_s: float = 30.0) -> None:
    assert wait_until(lambda: all(is_gone(pid) for pid in pids), deadline_s), pids


def kill_the_tuner(machine: Machine, seed: int) -> None:
    victim = machine.start(cycles=3, runs=50)
    guardian = machine.guardian_of(victim)
    at_a_seeded_instant(seed)
    kill(victim.process.pid)
    await_gone(victim.process.pid, guardian)
    machine.assert_clean()
    assert "the tuner has gone without a word" in machine.log
    assert "nothing of the run is left" in machine.log


def kill_the_guardian(machine: Machine, seed: int) -> None:
    victim = machine.start(cycles=3, runs=50)
    guardian = machine.guardian_of(victim)
    at_a_seeded_instant(seed)
    kill(guardian)
    _, errors = victim.process.communicate(timeout=30)
    assert victim.process.returncode == 5, errors
    assert f"the guardian of this run (pid {guardian}) was ended" in errors
    machine.assert_clean()


def kill_both(machine: Machine, seed: int) -> None:
    victim = machine.start(cycles=3, runs=50)
    guardian = machine.guardian_of(victim)
    at_a_seeded_instant(seed)
    pids = [guardian, victim.process.pid]
    if seed % 3 == 0:  # else the tuner lives for an instant and may notice
        os.kill(victim.process.pid, signal.SIGSTOP)
    kill(*pids if seed % 2 else reversed(pids))
    await_gone(*pids)
    tag = machine.run_tag + "-again"  # another run: its own sweeps do not find the first's servers
    again = machine.start(cycles=1, runs=1, run_tag=tag)
    second = machine.guardian_of(again)
    assert again.wait() == 0
    await_gone(second)
    machine.assert_clean()
    assert tagged_processes(tag) == ()


def mend_here(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, value in machine.standin.environment().items():
        monkeypatch.setenv(name, value)
    return repair(machine.state, partial(opened_limits, Access.SET))
