"""What is measured is kept: through a lock, a full disk, and a death between log and store."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.scripted import ScriptedEvaluator, infrastructure
from helpers.testbed import OWNER, SPEC, Testbed, identity

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError
from tuner.records import Failure, Measurement, Source
from tuner.store import RepeatKind, Store, TrialState, study_lock
from tuner.store.faults import StoreBusyError, StoreFullError
from tuner.store.lock.protocol import StudyLock
from tuner.store.log.log_records import LoggedResult, LoggedStudy
from tuner.store.log.measurement_log import MeasurementLog, latest
from tuner.store.upkeep import file_systems
from tuner.study.durability import durable_evaluator as keeping
from tuner.study.durability.backups import Backups
from tuner.study.durability.durable_evaluator import (
    MOST_INTERRUPTIONS,
    DurableEvaluator,
    Gate,
    StoreTimeouts,
    retry_store_faults,
)
from tuner.study.durability.recovery import recover

FEW = SPEC.model_copy(update={"trials": 2})
QUICK = StoreTimeouts(locked_s=0.2, full_s=0.2)
HERE = Configuration(flags={"max_num_seqs": 8, "gpu_memory_utilization": 0.5})


class KeptTestbed(Testbed):
    """The loop's bed with the measurement log between evaluator and loop."""

    def __init__(self, store: Store, lock: StudyLock, folder: Path) -> None:
        self.lock = lock
        super().__init__(store, spec=FEW)
        self.scripted = ScriptedEvaluator()
        self.log = MeasurementLog(folder / "night.jsonl", reserve_bytes=4096)
        self.log.open()
        self.evaluator = self.kept(StoreTimeouts())  # type: ignore[assignment]

    def kept(self, patience: StoreTimeouts) -> DurableEvaluator:
        note = self.listener.note
        gate = Gate(self.store, self.lock, note, patience)
        backups = Backups(self.store, 0, note)
        return DurableEvaluator(
            self.scripted, self.log, gate, self.store, "s", OWNER, patience, backups
        )

    def recover(self) -> int:
        return recover("s", self.spec, self.store, self.log, self.listener.note)

    def run(self) -> None:
        run = self.start()
        self.recover()
        run.reconcile()
        asyncio.run(run.run())

    def logged(self) -> list[LoggedResult]:
        return [r for r in latest(self.log.path) if isinstance(r, LoggedResult)][::-1]


@pytest.fixture
def bed(store: Store, tmp_path: Path) -> Iterator[KeptTestbed]:
    with study_lock(store.url, "s") as lock:
        yield KeptTestbed(store, lock, tmp_path / "log")


@contextmanager
def held(store: Store, seconds: float) -> Iterator[threading.Thread]:
    """Hold the store's write lock from another connection, as a backup does."""
    assert store.path is not None
    connection = sqlite3.connect(store.path, check_same_thread=False, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")

    def release() -> None:
        time.sleep(seconds)
        connection.execute("ROLLBACK")

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
        connection.close()


def test_every_result_is_in_the_log_and_a_store_that_is_older_is_not_gone_on_with(
    bed: KeptTestbed, tmp_path: Path
) -> None:
    bed.run()
    rows = bed.store.trials("s")
    assert [r.number for r in bed.logged()] == [0, 1]
    for record, row in zip(bed.logged(), rows, strict=True):
        assert record.result == row.measurement
        assert record.configuration == row.configuration
        assert record.spent_s == 10.0

    older = Store.open(tmp_path / "older.db", create=True)
    older.create_study(identity(FEW))
    with pytest.raises(OperatorNeededError, match=r"older than .* trial 1.*tuner store rebuild"):
        recover("s", FEW, older, bed.log, bed.listener.note)


def test_what_died_between_log_and_store_is_taken_from_the_log(
    bed: KeptTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    original = Store.save_measurement

    def dying(self: Store, study: str, number: int, *args: object, **more: object) -> None:
        if number == 1:
            raise Died
        original(self, study, number, *args, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save_measurement", dying)
        with pytest.raises(Died):
            asyncio.run(bed.start().run())
    bed.run()
    assert len(bed.scripted.asked) == 2  # none was measured twice
    rows = bed.store.trials("s")
    assert all(r.measurement is not None for r in rows) and len(rows) == 2
    assert bed.store.study("s").spent_s == pytest.approx(20.0)
    assert any("taken from the measurement log" in note for note in bed.listener.notes)
    assert bed.recover() == 0


def test_a_failure_is_kept_too(bed: KeptTestbed) -> None:
    bed.scripted.script = lambda *_: infrastructure("gone")
    bed.store.begin_trial("s", 0, HERE, baseline=False, owner=OWNER)
    asyncio.run(bed.evaluator.evaluate(HERE, 0))
    assert bed.recover() == 1
    failure = bed.store.trials("s")[0].failure
    assert isinstance(failure, Failure) and failure.reason == "gone"


def test_a_repeat_that_did_not_reach_the_store_is_taken_from_the_log(bed: KeptTestbed) -> None:
    bed.run()
    number = bed.store.repeats.begin("s", 1, RepeatKind.CONFIRMATION, OWNER)
    asyncio.run(bed.evaluator.confirm(bed.store.trials("s")[1].configuration, number, 3))
    assert bed.recover() == 1
    (repeat,) = bed.store.repeats.of("s")
    assert (repeat.trial, repeat.kind) == (1, RepeatKind.CONFIRMATION)
    assert isinstance(repeat.measurement, Measurement)
    assert bed.store.repeats.drop_running("s") == []


def test_a_locked_store_delays_and_drops_nothing(bed: KeptTestbed) -> None:
    gate = Gate(bed.store, bed.lock, bed.listener.note, StoreTimeouts(locked_s=30.0))
    with held(bed.store, 0.2):
        with pytest.raises(StoreBusyError):
            bed.store.probe()
        asyncio.run(gate.wait_until_writable())  # returns once it is free
    bed.store.probe()


def test_patience_with_a_lock_ends(bed: KeptTestbed) -> None:
    with held(bed.store, 0.5), pytest.raises(StoreBusyError, match="stayed locked"):
        asyncio.run(bed.kept(QUICK).evaluate(HERE, 0))
    assert bed.scripted.asked == []  # nothing was launched
    assert any("waiting for it" in note for note in bed.listener.notes)


async def test_a_write_that_met_a_full_disk_is_begun_again_after_putting_in_order(
    bed: KeptTestbed,
) -> None:
    faults, done = [StoreFullError("full"), StoreBusyError("locked")], list[str]()

    async def go() -> None:
        if faults:
            raise faults.pop()
        done.append("went")

    gate = Gate(bed.store, bed.lock, bed.listener.note, StoreTimeouts())
    await retry_store_faults(gate, go, lambda: done.append("put in order"))
    assert done == ["put in order", "put in order", "went"]


async def test_it_is_not_begun_again_for_ever(
    bed: KeptTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    went: list[None] = []

    async def go() -> None:
        went.append(None)
        raise StoreFullError("by a quota that cannot be seen beforehand")

    monkeypatch.setattr(keeping, "_POLL_S", 0.0)
    gate = Gate(bed.store, bed.lock, bed.listener.note, QUICK)
    with pytest.raises(StoreFullError):
        await retry_store_faults(gate, go, lambda: None)
    assert len(went) == 1 + MOST_INTERRUPTIONS
    went.clear()
    with held(bed.store, 0.5), pytest.raises(StoreBusyError):
        await retry_store_faults(gate, go, lambda: None)
    assert len(went) == 1 and gate.has_given_up


async def test_a_full_disk_between_two_evaluations_is_waited_for(
    bed: KeptTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking, beginning, storing and telling write, too."""
    run, full = bed.start(), ["begin_trial", "save_measurement"]

    def once_full(name: str) -> None:
        original = getattr(Store, name)

        def meeting(self: Store, *args: object, **more: object) -> object:
            if name in full:
                full.remove(name)
                raise StoreFullError("full")
            return original(self, *args, **more)

        monkeypatch.setattr(Store, name, meeting)

    for name in full:
        once_full(name)

    def put_in_order() -> None:
        bed.recover()
        run.reconcile()

    gate = Gate(bed.store, bed.lock, bed.listener.note, StoreTimeouts())
    await retry_store_faults(gate, run.run, put_in_order)
    assert full == []
    rows = [row for row in bed.store.trials("s") if row.measurement is not None]
    assert len(rows) == 2 and len(bed.scripted.asked) == 2  # none was measured twice


async def test_the_time_of_a_result_that_was_stored_counts_whatever_follows(
    bed: KeptTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result whose time is lost would be an evaluation beyond the budget of hours."""
    run, faults = bed.start(), [StoreFullError("full")]
    original = Store.save_measurement

    def then_full(self: Store, *args: Any, **more: Any) -> None:
        original(self, *args, **more)
        if faults:
            raise faults.pop()

    def put_in_order() -> None:
        bed.recover()
        run.reconcile()

    monkeypatch.setattr(Store, "save_measurement", then_full)
    gate = Gate(bed.store, bed.lock, bed.listener.note, StoreTimeouts())
    await retry_store_faults(gate, run.run, put_in_order)
    assert len(bed.scripted.asked) == 2
    assert bed.store.study("s").spent_s == pytest.approx(20.0)


def test_nothing_is_launched_on_a_full_disk_and_it_is_said(
    bed: KeptTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_systems, "free_bytes", lambda _: 1000)
    with pytest.raises(StoreFullError, match=r"no space is left.*tuner resume.*is kept"):
        asyncio.run(bed.kept(QUICK).evaluate(HERE, 0))
    assert bed.scripted.asked == []
    assert any("nothing is launched" in note for note in bed.listener.notes)


def test_a_disk_that_fills_while_measuring_costs_no_measurement(
    bed: KeptTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filling(configuration: Configuration, trial: int) -> Measurement | Failure:
        monkeypatch.setattr(file_systems, "free_bytes", lambda _: 0)
        return Measurement({"x": 1.0}, 0.0, 1.0, Source.EMULATED, Source.EMULATED)

    bed.scripted.script = filling
    bed.store.begin_trial("s", 0, HERE, baseline=False, owner=OWNER)
    with pytest.raises(StoreFullError):
        asyncio.run(bed.kept(QUICK).evaluate(HERE, 0))
    assert [r.number for r in bed.logged()] == [0]
    monkeypatch.undo()  # somebody made room
    assert bed.recover() == 1
    assert bed.store.trials("s")[0].state is not TrialState.RUNNING


def test_a_result_without_room_in_the_log_waits_in_memory(
    bed: KeptTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failures = MeasurementLog.append, [OSError(28, "No space left on device")] * 1

    def full_once(self: MeasurementLog, record: LoggedResult | LoggedStudy) -> None:
        if failures:
            raise failures.pop()
        original(self, record)

    monkeypatch.setattr(MeasurementLog, "append", full_once)
    asyncio.run(bed.kept(StoreTimeouts(full_s=30.0)).evaluate(HERE, 0))
    assert [r.number for r in bed.logged()] == [0]


def test_a_backup_is_made_as_the_store_grows(bed: KeptTestbed) -> None:
    assert bed.store.path is not None
    backups = Backups(bed.store, 0, bed.listener.note)
    made: list[int] = []
    for count in range(32):
        asyncio.run(backups.make_if_due())
        newest = bed.store.path.with_name("tuner.db.backup-1")
        if newest.exists():
            made.append(count)
            newest.unlink()
    assert made == [10, 20, 30]
    with closing(sqlite3.connect(bed.store.path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_store_beyond_the_bound_is_not_copied(bed: KeptTestbed, monkeypatch) -> None:
    monkeypatch.setattr("tuner.store.upkeep.backup.MOST_BYTES", 1)
    backups = Backups(bed.store, 0, bed.listener.note)
    for _ in range(32):
        asyncio.run(backups.make_if_due())
    assert bed.store.path is not None
    assert not list(bed.store.path.parent.glob("*.backup*"))
    told = [note for note in bed.listener.notes if "not backed up any more" in note]
    assert len(told) == 1
