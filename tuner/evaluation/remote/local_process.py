"""Local process: the carrier of a bench in a process of its own on this host."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tuner.devices.open import environment_for
from tuner.errors import OperatorNeededError
from tuner.evaluation.evaluator import BenchLostError
from tuner.evaluation.remote.messages import Call, Cancel, Close, Done, Failed, Note, Sample
from tuner.evaluation.remote.protocol import BenchOrder, LeftOver, Method, Reply
from tuner.host.files.private import open_private, private_folder
from tuner.host.python_process import PYTHON, own_environment
from tuner.measurement.listener import LoadListener

_MODULE = "tuner.evaluation.remote.bench_process"
_CLOSE_S = 60.0  # for a bench to stop its servers; then its guardian does


class LocalProcess:
    """Keeps one bench process, which ends with the pipe to it, whatever ends this process.

    `name` is put before the bench's notes.
    """

    def __init__(self, order: BenchOrder, listener: LoadListener, name: str) -> None:
        self._order = order
        self._listener = listener
        self._name = name
        self._process: _Process | None = None

    @property
    def pid(self) -> int | None:
        """The bench's process, if there is one."""
        return None if self._process is None else self._process.pid

    async def call(self, method: Method, *arguments: Any) -> Reply:
        """Run a method there; see `Carrier`."""
        if self._process is None or self._process.is_lost:
            variables = await asyncio.to_thread(_variables, self._order)
            self._process = _Process(self._order, self._told, variables)
        return await self._process.call(method, arguments)

    async def left_over(self) -> LeftOver | None:
        """Return None: it ends with its driver."""
        return None

    async def close(self) -> None:
        """Stop it; see `Carrier`."""
        if self._process is not None:
            await self._process.close()
            self._process = None

    def _told(self, message: Note | Sample) -> None:
        if isinstance(message, Note):
            self._listener.note(f"card {self._name}: {message.text}")
        else:
            self._listener.load_sampled(message.snapshot)


class _Process:
    """One bench process and the calls that it has not answered."""

    def __init__(self, order: BenchOrder, told: Any, variables: Mapping[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = told
        self._numbers = itertools.count()
        self._open: dict[int, asyncio.Future[Reply]] = {}
        self._ended = asyncio.Event()
        self._log_path = order.log_folder / "bench.log"
        self._connection, self._process = _started(variables, self._log_path)
        self._send_lock = threading.Lock()
        threading.Thread(target=self._read, name="bench replies", daemon=True).start()
        self._send(order)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_lost(self) -> bool:
        return self._ended.is_set()

    async def call(self, method: Method, arguments: tuple[Any, ...]) -> Reply:
        number = next(self._numbers)
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._open[number] = answer
        if self.is_lost:
            self._fail()
        else:
            await asyncio.to_thread(self._send, Call(number, method, arguments))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            await asyncio.to_thread(self._send, Cancel(number))
            await asyncio.wait([answer])
            answer.exception()
            raise

    async def close(self) -> None:
        self._send(Close())
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._ended.wait()
        except TimeoutError:
            self._process.kill()  # its guardian stops what it has left
            await self._ended.wait()

    def _send(self, message: object) -> None:
        with self._send_lock:
            try:
                self._connection.send(message)
            except OSError:  # the reader sees its end
                return

    def _read(self) -> None:
        """Hand on what the bench says until it ends; in a thread of its own."""
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                break
            if isinstance(message, Sample):
                self._told(message)  # as a load's own thread does
            else:
                self._loop.call_soon_threadsafe(self._take, message)
        self._process.wait()
        self._connection.close()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    def _take(self, message: Done | Failed | Note) -> None:
        if isinstance(message, Note):
            self._told(message)
            return
        answer = self._open.pop(message.number)
        if isinstance(message, Done):
            answer.set_result(message.reply)
        else:
            answer.set_exception(message.error)

    def _end(self) -> None:
        self._ended.set()
        self._fail()

    def _fail(self) -> None:
        code = self._process.returncode
        for answer in self._open.values():
            answer.set_exception(
                BenchLostError(f"its process ended with code {code}; see {self._log_path}")
            )
        self._open.clear()


def _variables(order: BenchOrder) -> Mapping[str, str]:
    """Return what shows the bench its GPUs; one that is gone loses the bench."""
    if not order.gpu_uuids:
        return {}
    try:
        return environment_for(order.gpu_uuids)
    except OperatorNeededError as error:
        raise BenchLostError(str(error)) from error


def _started(
    variables: Mapping[str, str], log_path: Path
) -> tuple[Connection, subprocess.Popen[bytes]]:
    """Start the bench's process; return our end of the pipe to it, and the process.

    Raises `BenchLostError` if this machine cannot start it now.
    """
    environment = {**own_environment(), **variables}
    try:
        private_folder(log_path.parent)
        with (
            os.fdopen(open_private(log_path, os.O_WRONLY | os.O_APPEND), "ab") as log,
            ExitStack() as unused,
        ):
            ours, theirs = map(unused.enter_context, Pipe())
            process = subprocess.Popen(
                [*PYTHON, _MODULE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a signal of the terminal is the driver's to handle
            )
            theirs.close()
            unused.pop_all()
    except OSError as error:
        raise BenchLostError(f"its process cannot be started (log {log_path}): {error}") from error
    return ours, process
