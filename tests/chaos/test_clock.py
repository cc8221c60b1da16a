"""Nights in which somebody sets the clock: it tells people the time, and nothing else."""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from helpers.chaos.harness import Night, night_in
from helpers.chaos.wall_clock import WallClock

from tuner.store import Store, TrialRow

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
HOUR_S = 3600
TRIALS = 24


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    with night_in(tmp_path, TRIALS) as found:
        yield found


def steps_s(night: Night) -> list[float]:
    """How far the clock went apart from the monotonic one between two lines of the log, s."""
    (log,) = night.machine.tuner.folder.rglob("study.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    apart = [datetime.fromisoformat(x["time"]).timestamp() - x["monotonic_s"] for x in lines]
    return [later - earlier for earlier, later in itertools.pairwise(apart)]


def assert_told_as_it_was(night: Night, at_most_s: float) -> None:
    """What is said of the night's length is what it took; nothing of it is negative."""
    tuner = night.machine.tuner
    shown = json.loads(tuner("status", "night", "--format", "json").stdout)
    running = shown["running"]
    assert running is None or 0.0 <= running["for_s"] <= at_most_s
    assert shown["left_s"] is None or 0.0 <= shown["left_s"] <= HOUR_S / 2
    assert 0.0 < shown["spent_s"] <= at_most_s


def test_a_clock_that_is_set_back_by_an_hour(night: Night, tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    night.machine.tuner.environment.update(clock.environment())
    began_s = time.monotonic()
    process = night.start()
    night.await_measurements(process)
    clock.step(-HOUR_S)
    assert_told_as_it_was(night, time.monotonic() - began_s)
    code, errors = night.run()  # the lock of the one that runs is not an old one
    assert code == 3 and f"is being run by process {process.pid}" in errors
    night.await_measurements(process, 3)

    process.send_signal(signal.SIGKILL)
    process.communicate()
    night.kills += 1
    clock.step(-HOUR_S)  # and once more before it is resumed
    code, errors = night.run()
    assert code == 0, errors
    took_s = time.monotonic() - began_s
    night.assert_complete()
    assert sum(-1.1 * HOUR_S < step < -0.9 * HOUR_S for step in steps_s(night)) == 2

    rows = night.machine.tuner.trials("night")
    assert all(0.0 < elapsed_s(row) < took_s for row in rows if row.measurement)
    with Store.open(night.machine.tuner.store_path, create=False) as store:
        spent_s = store.study("night").spent_s
    assert sum(elapsed_s(row) for row in rows if row.measurement) <= spent_s <= took_s
    assert_told_as_it_was(night, took_s)
    assert night.machine.tuner("report", "night").returncode == 0


def elapsed_s(row: TrialRow) -> float:
    assert row.timing is not None
    return row.timing.elapsed_s
