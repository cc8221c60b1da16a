"""Fleet: the workers of a run, what they do side by side, and the time that passes meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from tuner.errors import OperatorNeededError, TunerError
from tuner.evaluation.evaluator import BenchLostError, Evaluation
from tuner.study.workers.worker import Worker

MOST_LOSSES = 2  # of one worker in a row; then the study goes on without it
BACK_OFF_S = 2.0
REJOIN_S = 300.0  # between two looks whether such a worker is back

T = TypeVar("T")
Job = Callable[[Worker], Awaitable[bool]]
Newcomers = Callable[[], Coroutine[Any, Any, Sequence[Worker]]]


def _unheard(_: str) -> None:
    pass


@dataclass(slots=True, eq=False)
class _Pause:
    """A worker on the virtual clock, which ends its evaluation in `left_s`."""

    left_s: float
    passed_s: asyncio.Future[float]


class Fleet:
    """Workers that evaluate side by side, in real time or each on a virtual clock of its own.

    A virtual evaluation is computed at once and then waits for its turn: the evaluation whose
    virtual time is over first is the next to end, as on real cards. With one worker nothing waits.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        note: Callable[[str], object] = _unheard,
        newcomers: Newcomers | None = None,
    ) -> None:
        """`newcomers` returns workers that can be used and are not in the fleet yet."""
        self.workers = list(workers)
        self._note = note
        self._newcomers = newcomers
        self._losses: dict[Worker, int] = {}
        self._absent: list[Worker] = []  # lost too often
        self._is_over = asyncio.Event()
        self._busy = 0
        self._pauses: list[_Pause] = []
        self._idle: list[asyncio.Future[bool]] = []
        self._last_end_s = 0.0  # on the monotonic clock

    @property
    def first(self) -> Worker:
        """The worker of what is measured on one card only."""
        return self.workers[0]

    async def work_off(self, job: Job) -> None:
        """Run `job` on every worker, again and again, until no worker finds anything to do.

        `job` says whether it did something. A worker that found nothing is asked again when another
        one has ended its own. The first exception ends the others.
        """
        self._busy = len(self.workers)
        self._is_over.clear()
        everyone = [*self.workers, *self._absent]
        tasks = {asyncio.create_task(self._attend(worker, job)) for worker in everyone}
        joining = asyncio.create_task(self._joined())
        running = {*tasks, joining}
        try:
            while running:
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in ended - {joining}:
                    task.result()
                if joining in ended and (new := joining.result()):
                    self._busy += len(new)
                    running |= {asyncio.create_task(self._attend(worker, job)) for worker in new}
                    joining = asyncio.create_task(self._joined())
                    running.add(joining)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._busy = 0
            self._pauses.clear()
            self._idle.clear()

    def leave_out(self, worker: Worker) -> None:
        """Use a worker no more; what it does at the moment comes to its end."""
        if worker in self.workers:
            self.workers.remove(worker)

    async def run_on_one(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`, which uses the first worker, and run it again if that was lost."""
        while True:
            worker = self.first
            try:
                return await work()
            except BenchLostError as lost:
                await self._is_lost_for_good(worker, lost)

    async def passed_s(self, evaluation: Evaluation, began_s: float) -> float:
        """Return when an evaluation has ended: how much time has passed for the fleet, s.

        The times of all evaluations add up to the time that the fleet took. `began_s` is when the
        evaluation began, on the monotonic clock.
        """
        if evaluation.is_virtual:
            pause = _Pause(evaluation.timing.elapsed_s, asyncio.get_running_loop().create_future())
            self._pauses.append(pause)
            self._advance()
            return await pause.passed_s
        now_s = time.monotonic()
        passed_s = now_s - max(began_s, self._last_end_s)
        self._last_end_s = now_s
        return passed_s

    def counted_s(self, waited_s: float) -> float:
        """Return how much of a wait that ends now is time of the fleet, s.

        What had passed when another worker's evaluation ended is in the time of that.
        """
        now_s = time.monotonic()
        counted_s = min(waited_s, now_s - self._last_end_s)
        self._last_end_s = now_s
        return counted_s

    async def _attend(self, worker: Worker, job: Job) -> None:
        """Keep a worker busy, and again each time that it comes back after it was lost."""
        if worker not in self._absent:
            await self._keep_busy(worker, job)
        while worker in self._absent and await self._comes_back(worker):
            await self._keep_busy(worker, job)

    async def _joined(self) -> list[Worker]:
        """Wait for newcomers; none once the others have done everything."""
        while self._newcomers is not None and await self._is_time_to_look():
            new = await self._unless_over(self._newcomers()) or ()
            for worker in new:
                self._absent = [one for one in self._absent if one.card != worker.card]
                self.workers.append(worker)
                self._note(f"card {worker.card} joins")
            if new and not self._is_over.is_set():
                return list(new)
        return []

    async def _is_time_to_look(self) -> bool:
        """Wait until it is; False once the others have done everything."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), REJOIN_S)
        return not self._is_over.is_set()

    async def _comes_back(self, worker: Worker) -> bool:
        """Wait until a lost worker can be used; False once the others have done everything."""
        while await self._is_time_to_look():
            if await self._is_ready(worker) and not self._is_over.is_set():
                self._absent.remove(worker)
                self.workers.append(worker)
                self._busy += 1
                self._losses.pop(worker, None)
                self._note(f"card {worker.card} is back")
                return True
        return False

    async def _is_ready(self, worker: Worker) -> bool:
        """Say whether a worker can be used, or False once the others have done everything."""
        try:
            return await self._unless_over(worker.evaluator.prepare()) is not None
        except TunerError:
            return False

    async def _unless_over(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what `work` does; None, and it is cancelled, once the others are done."""
        over = asyncio.create_task(self._is_over.wait())
        tried = asyncio.create_task(work)
        try:
            await asyncio.wait([over, tried], return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            tried.cancel()
            await asyncio.wait([over, tried])
        return None if tried.cancelled() else tried.result()

    async def _keep_busy(self, worker: Worker, job: Job) -> None:
        while True:
            await asyncio.sleep(0)  # a virtual evaluation never waits, and signals arrive here
            try:
                is_done = await job(worker)
            except BenchLostError as lost:
                if await self._is_lost_for_good(worker, lost):
                    self._ask_the_idle_again()
                    self._busy -= 1
                    self._advance()
                    return
                is_done = True  # what it had is to be done again
            else:
                self._losses.pop(worker, None)
            if is_done:
                self._ask_the_idle_again()
            elif not await self._others_end_something():
                return

    async def _is_lost_for_good(self, worker: Worker, lost: BenchLostError) -> bool:
        """Wait before a lost worker is used again; say whether it was lost too often in a row.

        Raises `OperatorNeededError` when none is left.
        """
        self._losses[worker] = losses = self._losses.get(worker, 0) + 1
        if losses < MOST_LOSSES:
            self._note(f"card {worker.card} was lost ({lost}); its point is measured again")
            self._ask_the_idle_again()
            await asyncio.sleep(BACK_OFF_S)
            return False
        self._note(
            f"card {worker.card} was lost {losses} times in a row ({lost}); the study goes on "
            "without it until it is back"
        )
        self.leave_out(worker)
        self._absent.append(worker)
        if not self.workers:
            raise OperatorNeededError(
                f"every card was lost, the last one so: {lost}; fix that, then resume the study"
            )
        return True

    async def _others_end_something(self) -> bool:
        """Wait, and return True to ask again; False once every worker is idle."""
        self._busy -= 1
        if not self._busy:
            self._is_over.set()
            for waiting in self._idle:
                waiting.set_result(False)
            return False
        asked_again = asyncio.get_running_loop().create_future()
        self._idle.append(asked_again)
        self._advance()
        return bool(await asked_again)

    def _ask_the_idle_again(self) -> None:
        self._busy += len(self._idle)
        for waiting in self._idle:
            waiting.set_result(True)
        self._idle.clear()

    def _advance(self) -> None:
        """Let the virtual clocks run to the next end, once every busy worker waits for it."""
        if not self._pauses or len(self._pauses) < self._busy:
            return
        first = min(self._pauses, key=lambda pause: pause.left_s)
        self._pauses.remove(first)
        for pause in self._pauses:
            pause.left_s -= first.left_s
        first.passed_s.set_result(first.left_s)
