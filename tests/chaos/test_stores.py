"""Nights whose disk fills, whose store is held by others, whose log is torn: nothing is lost."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from helpers.chaos.harness import Night, night_in
from helpers.chaos.mortal_tuner import Plan

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
TRIALS = 12
LOCKED_S = 60.0
AWAITED_S = 15.0  # less than the two minutes that a full disk is waited for
UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    with night_in(tmp_path, TRIALS) as found:
        yield found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of the store, its logs and its servers' logs, on a disk of 32 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small tmpfs")
    disk = tmp_path / "results"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, name: str = "somebody-elses") -> Path:
    """Take all the room there is."""
    filler = disk / name
    with filler.open("wb") as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                continue
    return filler


def test_a_disk_that_fills_while_measuring(small_disk: Path, night: Night) -> None:
    process = night.start()
    night.await_measurements(process)
    filler = fill(small_disk)
    time.sleep(AWAITED_S)
    assert process.poll() is None, process.communicate()  # it waits
    filler.unlink()
    night.await_measurements(process, 2)

    filler = fill(small_disk)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 5, errors
    assert "no space is left" in errors and "nothing is launched" in errors
    assert "Traceback" not in errors
    night.assert_clean()
    began = night.evaluations()
    more = fill(small_disk, "what-it-gave-back")
    code, errors = night.run()  # too early
    assert code in (3, 5) and "Traceback" not in errors, errors
    assert night.evaluations() == began

    filler.unlink()
    more.unlink()
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete()  # and nothing was measured twice


def test_files_that_may_not_grow(night: Night) -> None:
    process = night.start()
    night.await_measurements(process)
    size = night.machine.tuner.store_path.stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, UNLIMITED))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 5, errors
    assert "no space is left" in errors and "Traceback" not in errors
    night.assert_clean()
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete()


def test_a_store_that_somebody_locks_for_a_minute(night: Night) -> None:
    process = night.start()
    night.await_measurements(process)
    with closing(sqlite3.connect(night.machine.tuner.store_path, timeout=60.0)) as other:
        other.isolation_level = None
        other.execute("BEGIN EXCLUSIVE")  # nobody can even read it
        time.sleep(LOCKED_S)
        began = night.evaluations()
        other.execute("ROLLBACK")
    assert began < TRIALS  # it was held back, not passed by
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    night.assert_complete()


def killed_before_the_second_is_stored(night: Night) -> Path:
    """Return the log, which alone knows what was measured last."""
    code, errors = night.run(Plan(str(night.journal), "tell", occurrence=2))
    assert code == -signal.SIGKILL, errors
    night.kills += 1
    assert night.measured() == 1
    (log,) = night.machine.tuner.folder.glob("results/tuner.db.measured/*.jsonl")
    return log


def test_a_log_with_half_a_line_behind_the_last(night: Night) -> None:
    log = killed_before_the_second_is_stored(night)
    whole = log.read_bytes()
    last = whole[whole.rfind(b"\n") :]
    log.write_bytes(whole + last[: len(last) // 2])
    code, errors = night.run()
    assert code == 0, errors
    assert "taken from the measurement log" in errors
    night.assert_complete()
    assert night.evaluations() == TRIALS
    rebuilt = night.machine.tuner("store", "rebuild", "new.db")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert f"{TRIALS} trials" in rebuilt.stderr and "1 torn" in rebuilt.stderr


def test_a_log_whose_last_line_is_torn(night: Night) -> None:
    log = killed_before_the_second_is_stored(night)
    os.truncate(log, log.stat().st_size - 100)
    code, errors = night.run()
    assert code == 0, errors
    night.assert_complete()
    assert night.evaluations() == TRIALS + 1  # what nobody can read is measured again
