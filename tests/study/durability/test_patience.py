"""A busy machine is waited for, longer each time, and not for ever."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.scripted import ScriptedEvaluator, physics
from helpers.testbed import OWNER, SPEC, Died, Testbed
from optuna.trial import TrialState

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError
from tuner.evaluation.evaluator import Evaluation
from tuner.records import Failure, FailureKind, Measurement
from tuner.store import Store
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.durability import patience as patience_module
from tuner.study.durability.patience import (
    LONGEST_WAIT_S,
    LOOK_S,
    Patience,
    WorkersPatience,
)
from tuner.study.proposals.proposals import Proposals
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker

BUSY = Failure(FailureKind.BUSY, "the client was late")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, without waiting."""
    found: list[float] = []

    async def sleep(self: Patience, serves: Callable[[], bool]) -> float:
        wait_s = self._next_s
        self._next_s = None
        if wait_s is None:
            return 0.0
        found.append(wait_s)
        self._waited_s += wait_s
        self._waits += 1
        self._spend(wait_s)
        return wait_s

    monkeypatch.setattr(Patience, "wait", sleep)
    monkeypatch.setattr(Fleet, "counted_s", lambda _, waited_s: waited_s)  # nothing has passed
    return found


async def test_waits_grow_to_ten_minutes_and_end_after_an_hour() -> None:
    slept: list[float] = []
    waited: list[float] = []
    notes: list[str] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    spent: list[float] = []
    patience = Patience(3600.0, notes.append, spent.append, sleep)
    while patience.bears(BUSY):
        waited.append(await patience.wait())
    assert waited[:4] == [15.0, 30.0, 60.0, 120.0] and max(waited) == LONGEST_WAIT_S
    assert sum(waited) == sum(slept) == sum(spent) == 3600.0 and len(notes) == len(waited)
    patience.bears(Measurement({}, 0.0, 1.0, "measured", "measured"))  # type: ignore[arg-type]
    assert patience.bears(BUSY)
    assert not patience.bears(Failure(FailureKind.INFRASTRUCTURE, "no disk"))
    assert await patience.wait() == 0.0


async def test_a_wait_ends_when_it_serves_nobody() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    patience = Patience(3600.0, lambda _: None, lambda _: None, sleep)
    assert patience.bears(BUSY)
    waited_s = await patience.wait(lambda: not slept)
    assert waited_s == sum(slept) == LOOK_S
    assert patience.bears(BUSY)
    assert await patience.wait(lambda: False) == 0.0 and patience.due_s == 30.0


async def test_what_was_waited_before_a_kill_is_spent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience_module, "LOOK_S", 0.05)
    bed = Testbed(store)
    worker = bed.fleet.first
    patience = WorkersPatience("s", store, bed.fleet, 3600.0, lambda _: None)
    assert patience.bears(worker, BUSY, 0)
    (event,) = store.events("s")
    assert (event.kind, event.message, event.trial) == ("waiting", BUSY.reason, 0)
    waiting = asyncio.create_task(patience.wait(worker))
    while store.study("s").spent_s == 0.0:  # noqa: ASYNC110 - the store tells nobody
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert store.study("s").spent_s < 15.0  # not all that it was going to wait


class TwoCards(Testbed):
    """Somebody uses the first card all the time; both measure in real time."""

    @property
    def fleet(self) -> Fleet:
        busy = InRealTime(lambda configuration, trial: BUSY)
        return Fleet([Worker(busy, OWNER), Worker(InRealTime(), OWNER)])


class InRealTime(ScriptedEvaluator):
    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        return replace(await super().evaluate(configuration, trial), is_virtual=False)


def test_nobody_waits_for_a_card_once_others_have_measured_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience_module, "LOOK_S", 0.001)
    monkeypatch.setattr(patience_module, "FIRST_WAIT_S", 3600.0)
    monkeypatch.setattr(patience_module, "LONGEST_WAIT_S", 3600.0)
    TwoCards(store).run()
    measured = [t for t in store.trials("s") if t.measurement is not None]
    assert len(measured) == SPEC.trials
    assert store.study("s").spent_s < 3600.0


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


def test_a_kill_before_a_busy_machine_is_told_costs_no_attempt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Died

    bed = Testbed(store, lambda c, trial: BUSY if trial == 2 else physics(c, trial))
    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(Proposals, "retry", die)
        bed.run()
    again = Testbed(store)
    again.start().reconcile()
    (waiting,) = (t for t in again.optuna_trials if t.state is TrialState.WAITING)
    assert waiting.user_attrs["retry_of"] == 2 and waiting.user_attrs["attempt"] == 1


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
