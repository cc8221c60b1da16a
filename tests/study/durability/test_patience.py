"""A busy machine is waited for, longer each time, and not for ever."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from helpers.scripted import physics
from helpers.testbed import SPEC, Testbed

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError
from tuner.records import Failure, FailureKind, Measurement
from tuner.store import Store
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.durability.patience import LONGEST_WAIT_S, Patience

BUSY = Failure(FailureKind.INFRASTRUCTURE, "the client was late", passes=True)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, without waiting."""
    found: list[float] = []

    async def sleep(self: Patience) -> float:
        wait_s = self._next_s
        self._next_s = None
        if wait_s is None:
            return 0.0
        found.append(wait_s)
        self._waited_s += wait_s
        self._waits += 1
        return wait_s

    monkeypatch.setattr(Patience, "wait", sleep)
    return found


async def test_waits_grow_to_ten_minutes_and_end_after_an_hour() -> None:
    slept: list[float] = []
    notes: list[str] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    patience = Patience(3600.0, notes.append, sleep)
    while patience.bears(BUSY):
        await patience.wait()
    assert slept[:4] == [15.0, 30.0, 60.0, 120.0] and max(slept) == LONGEST_WAIT_S
    assert sum(slept) == 3600.0 and len(notes) == len(slept)
    patience.bears(Measurement({}, 0.0, 1.0, "measured", "measured"))  # type: ignore[arg-type]
    assert patience.bears(BUSY)
    assert not patience.bears(Failure(FailureKind.INFRASTRUCTURE, "no disk"))
    assert await patience.wait() == 0.0


def test_a_night_goes_on_after_a_busy_half_hour(store: Store, waits: list[float]) -> None:
    def busy_then_not(configuration: Configuration, trial: int) -> Measurement | Failure:
        return BUSY if 2 <= trial < 9 else physics(configuration, trial)

    bed = Testbed(store)
    bed.evaluator.script = busy_then_not
    bed.run()
    measured = [t for t in store.trials("s") if t.measurement is not None]
    assert len(measured) == SPEC.trials  # nothing of the budget was lost
    assert len({str(c) for n, c in bed.evaluator.asked if 2 <= n <= 9}) == 1  # the same point
    assert waits == [15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 600.0]


def test_a_machine_that_stays_busy_needs_a_person(store: Store, waits: list[float]) -> None:
    bed = Testbed(store)
    bed.evaluator.script = lambda configuration, trial: BUSY
    with pytest.raises(OperatorNeededError, match="the client was late"):
        bed.run()
    assert sum(waits) == 3600.0


def confirming(bed: Testbed) -> ConfirmationRun:
    return ConfirmationRun("s", bed.spec, bed.store, bed.fleet, bed.listener)


def test_a_confirmation_goes_on_after_a_busy_half_hour(store: Store, waits: list[float]) -> None:
    bed = Testbed(store)
    bed.run()
    searched_s = store.study("s").spent_s
    bed.evaluator.again = lambda c, repeat: BUSY if 2 <= repeat < 9 else physics(c, repeat)
    asyncio.run(confirming(bed).run())
    rows = store.repeats.of("s")
    assert waits == [15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 600.0]
    assert len({(r.trial, r.traffic) for r in rows[2:10]}) == 1  # the same one again
    assert rows[9].measurement is not None
    assert store.study("s").spent_s == pytest.approx(searched_s + 10.0 * len(rows) + sum(waits))
    undisturbed = confirming(bed)
    asyncio.run(undisturbed.run())
    assert store.repeats.of("s") == rows  # nothing was left out


def test_a_confirmation_on_a_machine_that_stays_busy_needs_a_person(
    store: Store, waits: list[float]
) -> None:
    bed = Testbed(store)
    bed.run()
    bed.evaluator.again = lambda configuration, repeat: BUSY
    with pytest.raises(OperatorNeededError, match="the client was late"):
        asyncio.run(confirming(bed).run())
    assert sum(waits) == 3600.0


def test_hours_that_end_before_a_wait_are_not_waited_for(store: Store, waits: list[float]) -> None:
    spec = SPEC.model_copy(update={"trials": None, "hours": 400.0 / 3600.0, "slos": ()})
    bed = Testbed(store, lambda c, trial: BUSY if trial >= 5 else physics(c, trial), spec)
    bed.run()
    assert waits == [15.0, 30.0, 60.0, 120.0]
    assert store.study("s").spent_s == pytest.approx(sum(waits) + 100.0)  # and 240 s would be next


def test_a_confirmation_does_not_wait_beyond_its_hours(store: Store, waits: list[float]) -> None:
    bed = Testbed(store)
    bed.run()
    bed.spec = SPEC.model_copy(update={"trials": None, "hours": 400.0 / 3600.0})
    store.add_spent_s("s", 200.0 - store.study("s").spent_s)
    bed.evaluator.again = lambda configuration, repeat: BUSY
    asyncio.run(confirming(bed).run())
    assert waits == [15.0, 30.0, 60.0]
    assert store.study("s").spent_s == pytest.approx(200.0 + sum(waits) + 40.0)  # 120 s are next


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_a_preferred_thread_starts_is_not_preferred() -> None:
    code = (
        "import os, subprocess, sys\n"
        "from tuner.host.process import preferred_thread\n"
        "if os.getpriority(0, 0): sys.exit(77)\n"
        "child = [sys.executable, '-c', 'import os; print(os.getpriority(0, 0))']\n"
        "with preferred_thread() as may:\n"
        "    if not may: sys.exit(78)\n"
        "    print(os.getpriority(0, 0), subprocess.check_output(child, text=True))\n"
        "print(os.getpriority(0, 0), os.sched_getscheduler(0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode in (77, 78):
        pytest.skip("this machine's priorities are set already, or may not be set")
    assert done.stdout.split() == ["-5", "0", "0", "0"], done.stderr
