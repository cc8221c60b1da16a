"""Patience: a machine that is only busy is waited for, longer each time, up to an hour in a row."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from tuner.records import Failure, FailureKind, Measurement
from tuner.store import Store
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker

FIRST_WAIT_S, LONGEST_WAIT_S = 15.0, 600.0
LOOK_S = 5.0  # between two looks whether a wait still serves anybody


def _always() -> bool:
    return True


class Patience:
    """Counts one worker's waits since it measured something, at most `limit_s` in all.

    `spend` is told of every few seconds as they pass, so that a kill loses none of them. `sleep` is
    for tests.
    """

    def __init__(
        self,
        limit_s: float,
        note: Callable[[str], None],
        spend: Callable[[float], None],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._limit_s = limit_s
        self._note = note
        self._spend = spend
        self._sleep = sleep
        self._waited_s = 0.0
        self._waits = 0
        self._next_s: float | None = None

    @property
    def due_s(self) -> float:
        """How long `wait` will wait, s."""
        return self._next_s or 0.0

    def bears(self, result: Measurement | Failure) -> bool:
        """Say whether to wait and try again, which `wait` then does; a measurement ends the row."""
        self._next_s = None
        if isinstance(result, Measurement):
            self._waited_s, self._waits = 0.0, 0
            return False
        if result.kind is not FailureKind.BUSY or self._waited_s >= self._limit_s:
            return False
        wanted_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**self._waits)
        self._next_s = min(wanted_s, self._limit_s - self._waited_s)
        return True

    async def wait(self, serves: Callable[[], bool] = _always) -> float:
        """Wait if the last result asked for it; return for how long, s.

        Ends as soon as it serves nobody: others may meanwhile have done what was to do.
        """
        wait_s = self._next_s
        if wait_s is None or not serves():
            return 0.0
        self._next_s = None
        self._note(
            f"the machine is busy: waiting {wait_s:.0f} s, then the same point is tried again "
            f"({self._waited_s / 60.0:.0f} of at most {self._limit_s / 60.0:.0f} min waited)"
        )
        waited_s = 0.0
        self._waits += 1
        while waited_s < wait_s and serves():
            step_s = min(LOOK_S, wait_s - waited_s)
            await self._sleep(step_s)
            waited_s += step_s
            self._waited_s += step_s
            self._spend(step_s)
        return waited_s


class WorkersPatience:
    """The patience with each worker's machine: another one's may be busy when its own is not.

    What is waited is time of the study, and stored as such, but not twice where others measure
    meanwhile; each wait is an event of the study.
    """

    def __init__(
        self, study: str, store: Store, fleet: Fleet, limit_s: float, note: Callable[[str], None]
    ) -> None:
        def spend(waited_s: float) -> None:
            store.add_spent_s(study, fleet.counted_s(waited_s))

        self._study = study
        self._store = store
        self._of = defaultdict[Worker, Patience](lambda: Patience(limit_s, note, spend))

    def due_s(self, worker: Worker) -> float:
        """Return how long `wait` will wait, s."""
        return self._of[worker].due_s

    def bears(self, worker: Worker, result: Measurement | Failure, trial: int) -> bool:
        """Say whether to wait and try again what a worker measured of a trial, see `Patience`."""
        is_borne = self._of[worker].bears(result)
        if is_borne and isinstance(result, Failure):
            self._store.add_event(self._study, "waiting", result.reason, trial=trial)
        return is_borne

    async def wait(self, worker: Worker, serves: Callable[[], bool] = _always) -> float:
        """Wait if the worker's last result asked for it, see `Patience`; return for how long, s."""
        return await self._of[worker].wait(serves)
