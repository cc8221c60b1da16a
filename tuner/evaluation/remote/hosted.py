"""Hosted bench: the side of a remote bench that has the GPUs."""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from typing import Any

from tuner.configuration import Configuration
from tuner.evaluation.evaluator import Evaluator
from tuner.evaluation.factory import RunContext, make_evaluator
from tuner.evaluation.remote.protocol import BenchOrder, Method, Reply
from tuner.evaluation.supervision import supervised
from tuner.host.files.private import private_folder
from tuner.host.process import preferred_thread
from tuner.measurement.listener import LoadListener


class HostedBench:
    """Runs the methods of one evaluator, one at a time, under a guardian of its own.

    The evaluator is open in a task that lasts as long as the bench: a call's would be over when the
    guardian is ended.
    """

    def __init__(self, order: BenchOrder, listener: LoadListener) -> None:
        self._order = order
        self._context = RunContext(order.run_tag, order.log_folder, order.access, listener)
        self._evaluator: Evaluator | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._is_open, self._closing = asyncio.Event(), asyncio.Event()
        self._work: asyncio.Task[Any] | None = None

    async def run(self, method: Method, arguments: tuple[Any, ...]) -> Reply:
        """Run a method, after opening the evaluator if need be; raises what it raises.

        Raises `OperatorNeededError` once the guardian was ended.
        """
        evaluator = await self._opened()
        work = self._work = asyncio.create_task(getattr(evaluator, method)(*arguments))
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait([work])
            raise
        if work.cancelled():
            await self._kept()
        value = work.result()
        first = arguments[0] if arguments else None
        is_warm = isinstance(first, Configuration) and evaluator.is_warm_for(first)
        return Reply(value, is_warm)

    async def close(self) -> None:
        """Stop everything that was started; raises what that raises."""
        if self._keeper is not None and not self._keeper.done():
            self._closing.set()
            await self._kept()

    async def _opened(self) -> Evaluator:
        """Return the evaluator; raises what opening it, or keeping it open, raised."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_open())
        is_open = asyncio.create_task(self._is_open.wait())
        try:
            await asyncio.wait([is_open, self._keeper], return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_open.cancel()
        if self._evaluator is None:
            failed, self._keeper = self._keeper, None  # the next call tries again
            failed.result()
        if self._keeper is None or self._keeper.done():
            await self._kept()
        assert self._evaluator is not None
        return self._evaluator

    async def _kept(self) -> None:
        if self._keeper is not None:
            await asyncio.wait([self._keeper])
            self._keeper.result()

    async def _keep_open(self) -> None:
        order = self._order
        if order.cores:
            os.sched_setaffinity(0, order.cores)  # its servers inherit them
        private_folder(order.log_folder)
        evaluator = await asyncio.to_thread(
            make_evaluator, order.spec, order.plan, order.knobs, self._context
        )
        is_preferred = order.spec.client_priority and order.spec.is_real_time
        with preferred_thread() if is_preferred else nullcontext():
            async with supervised(evaluator, self._context):
                self._evaluator = evaluator
                self._is_open.set()
                try:
                    await self._closing.wait()
                finally:
                    if self._work is not None:  # it ends before its evaluator closes
                        self._work.cancel()
                        await asyncio.wait([self._work])
