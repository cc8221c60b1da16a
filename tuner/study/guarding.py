"""Around all that starts servers or changes GPUs: mend what the dead left, and be watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tuner.gpu.durable import state_folder
from tuner.gpu.limits import open_limits
from tuner.serving.guardian import guarded, repair
from tuner.study.benches import RunPlace
from tuner.study.evaluator import Evaluator


@asynccontextmanager
async def watched_over(
    evaluator: Evaluator, place: RunPlace, note: Callable[[str], None]
) -> AsyncIterator[None]:
    """Have a guardian clean up behind this run, and mend first what killed runs left.

    Nothing is done for an evaluator that leaves the machine as it is. Raises
    `OperatorNeededError` if something cannot be mended or the guardian is ended meanwhile.
    """
    if not evaluator.needs_guardian:
        yield
        return
    messages, memory_bytes = await asyncio.to_thread(_mend)
    for message in messages:
        note(message)
    async with guarded(
        place.run_tag,
        log_path=place.log_folder / "guardian.log",
        state_folder=state_folder(),
        gpu_memory_bytes=memory_bytes,
    ):
        try:
            yield
        finally:
            await evaluator.close()  # before the guardian is told that all is cleaned up


def _mend() -> tuple[list[str], dict[str, int]]:
    """Mend, and return what was done and the memory that is in use on each GPU then."""
    control = open_limits()
    try:
        messages = repair(state_folder(), control)
        uuids = () if control is None else control.uuids()
        return messages, {u: control.memory_used_bytes(u) for u in uuids if control is not None}
    finally:
        if control is not None:
            control.close()
