"""Supervision: a guardian process cleans up behind a run; first, restore what killed runs left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from tuner.devices.open import opened_limits
from tuner.evaluation.evaluator import Evaluator
from tuner.evaluation.factory import RunContext
from tuner.host.state_folder import state_folder
from tuner.servers.guardian.clean_up import memory_in_use
from tuner.servers.guardian.guardian import guarded, repair


@asynccontextmanager
async def supervised(evaluator: Evaluator, context: RunContext) -> AsyncIterator[None]:
    """Restore what killed runs left, let a guardian clean up behind this run; close the evaluator.

    One that does not change the machine is only closed. Raises `OperatorNeededError` if something
    cannot be restored or the guardian dies during the run.
    """
    async with AsyncExitStack() as stack:
        if evaluator.needs_guardian:
            await stack.enter_async_context(await _guarded(context))
        # before the guardian is told that everything is cleaned up
        stack.push_async_callback(evaluator.close)
        yield


async def _guarded(context: RunContext) -> AbstractAsyncContextManager[object]:
    opener = partial(opened_limits, context.access)
    for message in await asyncio.to_thread(repair, state_folder(), opener):
        context.listener.note(message)
    return guarded(
        context.run_tag,
        log_path=context.log_folder / "guardian.log",
        state_folder=state_folder(),
        gpu_memory_bytes=await asyncio.to_thread(memory_in_use, context.listener.note),
        access=context.access,
    )
