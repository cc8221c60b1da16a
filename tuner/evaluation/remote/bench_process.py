"""Bench process: hosts one bench and answers the process that started it, over a pipe.

Started by `local_process.py` with the pipe's descriptor. When the pipe closes, whatever ended the
driver, it stops its servers and ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from functools import partial
from multiprocessing.connection import Connection

import uvloop

from tuner.errors import OperatorNeededError, TunerError
from tuner.evaluation.remote.hosted import HostedBench
from tuner.evaluation.remote.messages import Call, Cancel, Close, Done, Failed, Note, Sample
from tuner.evaluation.remote.protocol import BenchOrder, Reply
from tuner.records import LoadSnapshot


class _Pipe:
    """The bench's end of the pipe; it is also the listener of the bench's evaluator."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:  # the driver is gone, which the reader sees
                return

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        self.send(Sample(snapshot))

    def note(self, message: str) -> None:
        self.send(Note(message))


async def serve(connection: Connection) -> None:
    """Answer calls until the driver closes the bench or is gone."""
    pipe, loop = _Pipe(connection), asyncio.get_running_loop()
    inbox: asyncio.Queue[object] = asyncio.Queue()

    def read() -> None:
        while True:
            try:
                message: object = connection.recv()
            except (EOFError, OSError):
                message = Close()
            loop.call_soon_threadsafe(inbox.put_nowait, message)
            if isinstance(message, Close):
                return

    threading.Thread(target=read, name="driver's calls", daemon=True).start()
    order = await inbox.get()
    if not isinstance(order, BenchOrder):
        return
    bench, running = HostedBench(order, pipe), dict[int, asyncio.Task[Reply]]()
    answers = set[asyncio.Task[None]]()

    def settle(number: int, answer: asyncio.Task[None]) -> None:
        """Forget a call that was answered: what it returned holds the raw records of a window."""
        del running[number]
        if answer.cancelled() or answer.exception() is None:
            answers.discard(answer)
        else:  # end the process, with the traceback in its log
            inbox.put_nowait(Close())

    try:
        while not isinstance(message := await inbox.get(), Close):
            if isinstance(message, Call):
                work = asyncio.create_task(bench.run(message.method, message.arguments))
                running[message.number] = work
                answer = asyncio.create_task(_answer(pipe, message.number, work))
                answer.add_done_callback(partial(settle, message.number))
                answers.add(answer)
            elif isinstance(message, Cancel) and message.number in running:
                running[message.number].cancel()
    finally:
        for work in running.values():
            work.cancel()
        results = await asyncio.gather(*answers, return_exceptions=True)
        await bench.close()
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _answer(pipe: _Pipe, number: int, work: asyncio.Task[Reply]) -> None:
    await asyncio.wait([work])
    if work.cancelled():
        await asyncio.to_thread(pipe.send, Failed(number, OperatorNeededError("cancelled")))
        return
    error = work.exception()
    if isinstance(error, TunerError):
        await asyncio.to_thread(pipe.send, Failed(number, error))
    else:  # any other error ends the process
        await asyncio.to_thread(pipe.send, Done(number, work.result()))


if __name__ == "__main__":
    uvloop.run(serve(Connection(int(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)  # a thread that hangs in a driver call would keep it alive
