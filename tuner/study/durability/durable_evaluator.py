"""Durable evaluator: writes each result to the measurement log before it returns it.

It starts no evaluation while the store cannot be written, and syncs each result to disk first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from tuner.configuration import Configuration, Value
from tuner.errors import OperatorNeededError, PreflightError
from tuner.evaluation.evaluator import IDLE_S, Evaluation, Evaluator, LoadRun, Testbed
from tuner.store import Store, TrialOwner, raw
from tuner.store.faults import StoreAwayError, StoreBusyError, StoreFullError
from tuner.store.lock.protocol import StudyLock
from tuner.store.log.log_records import LoggedResult, RepeatOf
from tuner.store.log.measurement_log import RESERVE_BYTES, MeasurementLog
from tuner.study.durability.backups import Backups
from tuner.study.durability.results import without_secrets

MOST_INTERRUPTIONS = 10  # by a store that is full, locked or away, in one run
_POLL_S = 0.5
_TELL_AFTER_S = 2.0  # a shorter lock is not reported


@contextmanager
def opened_log(log: MeasurementLog, shown: str) -> Iterator[None]:
    """Open the log for a run on the store `shown`; raises `PreflightError` if that fails."""
    try:
        log.open()
    except OSError as error:
        raise PreflightError(
            f"cannot keep a measurement log for the store {shown} ({log.path.parent}: "
            f"{error.strerror}); it needs {RESERVE_BYTES >> 20} MiB of room and the right to write "
            "there"
        ) from None
    try:
        yield
    finally:
        log.close()


@dataclass(frozen=True, slots=True)
class StoreTimeouts:
    """How long to wait for the store before the run stops and asks a person, s."""

    locked_s: float = 600.0  # by another process, or a server that is away
    full_s: float = 120.0


class Gate:
    """Lets through who may write the store now; the wait for that can be cancelled."""

    def __init__(
        self,
        store: Store,
        lock: StudyLock,
        note: Callable[[str], None],
        patience: StoreTimeouts,
    ) -> None:
        self._store = store
        self._lock = lock
        self._note = note
        self._patience = patience
        self._one_at_a_time = asyncio.Lock()
        self.has_given_up = False  # the time-out has passed

    def end_connections(self) -> None:
        """End those that a fault left in the middle of a transaction; new ones are opened."""
        self._store.close()

    async def pass_through(self) -> None:
        """Return when the store can be written, if this run has been its study's only writer.

        Raises `StoreAwayError` if the study's lock was lost, even for a moment: what another
        process may have written has to be looked at first.
        """
        async with self._one_at_a_time:
            await asyncio.to_thread(self._lock.check)
            await self.wait_until_writable()

    async def wait_until_writable(self) -> None:
        """Return when the store can be written and the lock is held; raise after the time-out."""
        began_s = time.monotonic()
        is_told = False
        fault: StoreBusyError | StoreFullError | StoreAwayError
        while True:
            try:
                await asyncio.to_thread(self._store.probe)
                await asyncio.to_thread(self._lock.take_again)
                return
            except (StoreBusyError, StoreFullError, StoreAwayError) as error:
                fault = error
            if isinstance(fault, StoreBusyError):
                patience_s = self._patience.locked_s
                waits_for = "the store is locked by another process; waiting for it"
            elif isinstance(fault, StoreAwayError):
                patience_s = self._patience.locked_s
                waits_for = "the database server does not answer; waiting for it"
            else:
                patience_s = self._patience.full_s
                waits_for = "no space is left for the store; waiting, nothing is launched"
            waited_s = time.monotonic() - began_s
            if waited_s >= min(_TELL_AFTER_S, patience_s / 2) and not is_told:
                self._note(f"{waits_for} (at most {patience_s:g} s)")
                is_told = True
            if waited_s >= patience_s:
                self.has_given_up = True
                raise fault
            await asyncio.sleep(min(_POLL_S, patience_s / 5))


async def retry_store_faults(
    gate: Gate, go: Callable[[], Awaitable[None]], put_in_order: Callable[[], None]
) -> None:
    """Run `go`, and run it again each time the store was locked, full or away.

    Half-done work is reconciled before each retry. Raises the store's fault after the time-out.
    """
    for interruptions in range(MOST_INTERRUPTIONS + 1):
        try:
            if interruptions:
                put_in_order()
            await go()
            return
        except (StoreBusyError, StoreFullError, StoreAwayError):
            if gate.has_given_up or interruptions == MOST_INTERRUPTIONS:
                raise
            gate.end_connections()
        await asyncio.sleep(_POLL_S)
        await gate.wait_until_writable()


class DurableEvaluator:
    """Wraps an evaluator: every result is in the measurement log when it is returned.

    `evaluate` and `confirm` wait for a store that is locked, full or away, both before a launch and
    before they return the result. A result that does not fit into the log stays in memory during
    the wait. It is lost only if `OperatorNeededError` says so.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        log: MeasurementLog,
        gate: Gate,
        store: Store,
        study: str,
        owner: TrialOwner,
        patience: StoreTimeouts,
        backups: Backups,
    ) -> None:
        self._evaluator = evaluator
        self._backups = backups
        self._log = log
        self.gate = gate
        self._store = store
        self._study = study
        self._owner = owner
        self._patience = patience
        self.needs_guardian = evaluator.needs_guardian

    async def prepare(self) -> Testbed:
        """Delegate: check that the evaluator can run, and return what it runs on."""
        return await self._evaluator.prepare()

    async def defaults(self) -> Mapping[str, Value]:
        """Delegate: return the values of the knobs that are not set."""
        return await self._evaluator.defaults()

    def is_warm_for(self, configuration: Configuration) -> bool:
        """Delegate: say whether the warm server can serve the configuration."""
        return self._evaluator.is_warm_for(configuration)

    async def close(self) -> None:
        """Delegate: stop everything that was started."""
        await self._evaluator.close()

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Delegate and log the result; `OperatorNeededError` if the store stays unusable."""
        return await self._kept(
            lambda: self._evaluator.evaluate(configuration, trial), configuration, trial, None
        )

    async def confirm(self, configuration: Configuration, repeat: int, traffic: int) -> Evaluation:
        """Delegate and log the result; `OperatorNeededError` if the store stays unusable."""
        return await self._kept(
            lambda: self._evaluator.confirm(configuration, repeat, traffic),
            configuration,
            repeat,
            self._repeat_of(repeat),
        )

    async def probe(self, configuration: Configuration, repeat: int, run: LoadRun) -> Evaluation:
        """Delegate and log the result; `OperatorNeededError` if the store stays unusable."""
        return await self._kept(
            lambda: self._evaluator.probe(configuration, repeat, run),
            configuration,
            repeat,
            self._repeat_of(repeat),
        )

    async def idle(
        self, configuration: Configuration, repeat: int, window_s: float = IDLE_S
    ) -> Evaluation:
        """Delegate and log the result; `OperatorNeededError` if the store stays unusable."""
        return await self._kept(
            lambda: self._evaluator.idle(configuration, repeat, window_s),
            configuration,
            repeat,
            self._repeat_of(repeat),
        )

    async def switching(self, configuration: Configuration, repeat: int) -> Evaluation:
        """Delegate and log the result; `OperatorNeededError` if the store stays unusable."""
        return await self._kept(
            lambda: self._evaluator.switching(configuration, repeat),
            configuration,
            repeat,
            self._repeat_of(repeat),
        )

    def _repeat_of(self, number: int) -> RepeatOf:
        rows = self._store.repeats.every(self._study)
        row = next(r for r in rows if r.number == number)
        return RepeatOf(row.trial, row.kind, row.traffic, row.load)

    async def _kept(
        self,
        evaluate: Callable[[], Awaitable[Evaluation]],
        configuration: Configuration,
        number: int,
        repeat: RepeatOf | None,
    ) -> Evaluation:
        await self.gate.pass_through()
        await self._backups.make_if_due()
        started_at, began_s = datetime.now(UTC), time.monotonic()
        evaluation = without_secrets(await evaluate())
        wall_s = time.monotonic() - began_s
        await self._append(
            LoggedResult(
                number=number,
                configuration=configuration,
                owner=self._owner,
                started_at=started_at,
                ended_at=datetime.now(UTC),
                result=evaluation.result,
                timing=evaluation.timing,
                spent_s=evaluation.spent(wall_s).elapsed_s,
                warnings=evaluation.warnings,
                encoded_raw=None if evaluation.raw is None else raw.encode(evaluation.raw),
                repeat=repeat,
                answers=evaluation.answers,
                grades=evaluation.grades,
                pictures=evaluation.pictures,
            )
        )
        await self.gate.pass_through()
        return evaluation

    async def _append(self, record: LoggedResult) -> None:
        began_s = time.monotonic()
        while True:
            try:
                self._log.append(record)
                return
            except OSError as error:
                if time.monotonic() - began_s >= self._patience.full_s:
                    what = "repeat" if record.repeat else "trial"
                    raise OperatorNeededError(
                        f"what {what} {record.number} measured could not be written to "
                        f"{self._log.path} ({error.strerror}) and is lost; free some space, then "
                        f"`tuner resume {self._study}` measures it again"
                    ) from error
            await asyncio.sleep(_POLL_S)
