"""A bench process, served here: what it keeps of the calls that it has answered."""

from __future__ import annotations

import asyncio
import gc
from multiprocessing import Pipe
from pathlib import Path

from helpers.benches import CAPPED, virtual_order

from tuner.evaluation.remote.bench_process import serve
from tuner.evaluation.remote.messages import Call, Cancel, Close, Done
from tuner.records import RawRun


def raw_runs() -> int:
    gc.collect()
    return sum(isinstance(found, RawRun) for found in gc.get_objects())


async def test_what_was_answered_is_not_kept(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    bench = asyncio.create_task(serve(theirs))
    ours.send(virtual_order(tmp_path))
    before = raw_runs()
    for number in range(4):
        ours.send(Call(number, "evaluate", (CAPPED, number)))
        if number:
            ours.send(Cancel(number - 1))  # it has been answered meanwhile
        reply = await asyncio.to_thread(ours.recv)
        assert isinstance(reply, Done) and reply.number == number
        del reply
    async with asyncio.timeout(60.0):
        # the bench's latest stays
        while raw_runs() > before + 1:  # noqa: ASYNC110 - nothing tells of memory that is freed
            await asyncio.sleep(0.05)
    ours.send(Close())
    await bench
