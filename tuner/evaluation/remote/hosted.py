"""Hosted bench: the side of a remote bench that has the GPUs."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
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
    """Runs the methods of one evaluator under a guardian of its own."""

    def __init__(self, order: BenchOrder, listener: LoadListener) -> None:
        self._order = order
        self._context = RunContext(order.run_tag, order.log_folder, order.access, listener)
        self._stack = AsyncExitStack()
        self._evaluator: Evaluator | None = None

    async def run(self, method: Method, arguments: tuple[Any, ...]) -> Reply:
        """Run a method, after opening the evaluator if need be; raises what it raises."""
        if self._evaluator is None:
            self._evaluator = await self._opened()
        value = await getattr(self._evaluator, method)(*arguments)
        first = arguments[0] if arguments else None
        is_warm = isinstance(first, Configuration) and self._evaluator.is_warm_for(first)
        return Reply(value, is_warm)

    async def close(self) -> None:
        """Stop everything that was started."""
        await self._stack.aclose()

    async def _opened(self) -> Evaluator:
        order = self._order
        if order.cores:
            os.sched_setaffinity(0, order.cores)  # its servers inherit them
        private_folder(order.log_folder)
        evaluator = await asyncio.to_thread(
            make_evaluator, order.spec, order.plan, order.knobs, self._context
        )
        if order.spec.client_priority and order.spec.is_real_time:
            self._stack.enter_context(preferred_thread())
        await self._stack.enter_async_context(supervised(evaluator, self._context))
        return evaluator
