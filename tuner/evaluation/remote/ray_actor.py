"""Ray actor: hosts one bench on the node that has the GPUs, past the death of its driver.

The driver makes an actor of `RayBench` (`ray_carrier.py`). It keeps its latest result, so that a
driver that takes the study up again can have what the killed one did not live to see. Without a
driver for `ALONE_S` it stops its servers and ends. Nothing here imports Ray.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuner.errors import TunerError
from tuner.evaluation.remote.hosted import HostedBench
from tuner.evaluation.remote.protocol import BenchOrder, LeftOver, Method, Reply
from tuner.records import LoadSnapshot

ALONE_S = 900.0
_MOST_NOTES = 1000


@dataclass(frozen=True, slots=True)
class Facts:
    """What a driver asks of a new bench: where it is, and whether its cluster asks for a token."""

    host: str
    pid: int
    needs_token: bool
    identity: str  # of the order that it was opened from


@dataclass(frozen=True, slots=True)
class News:
    """Notes since the last time, and the state of the load if it changed."""

    notes: tuple[str, ...]
    snapshot: LoadSnapshot | None


class _Inbox:
    """The listener of the bench's evaluator; the driver fetches what it has heard."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.snapshot: LoadSnapshot | None = None

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        self.snapshot = snapshot

    def note(self, message: str) -> None:
        self.notes = [*self.notes[-_MOST_NOTES:], message]

    def taken(self) -> News:
        news = News(tuple(self.notes), self.snapshot)
        self.notes, self.snapshot = [], None
        return news


class RayBench:
    """One bench; an asynchronous actor, which runs one call at a time and answers meanwhile."""

    def __init__(self, order: BenchOrder, alone_s: float = ALONE_S) -> None:
        self._needs_token = os.environ.get("RAY_AUTH_MODE") == "token"
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            del os.environ[name]  # they are not the servers'
        self._identity = order.identity
        self._inbox = _Inbox()
        self._bench = HostedBench(order, self._inbox)
        self._alone_s = alone_s
        self._was_heard = asyncio.Event()
        self._work: asyncio.Task[Reply] | None = None
        self._latest: tuple[Method, tuple[Any, ...], datetime] | None = None
        self._watch: asyncio.Task[None] | None = None
        # a driver may be killed before it says a word to this bench
        self._unheard = threading.Timer(alone_s, os._exit, (0,))
        self._unheard.daemon = True
        self._unheard.start()

    async def facts(self) -> Facts:
        """Say where it runs; from now on it watches for its driver."""
        self._heard()
        if self._watch is None:
            self._unheard.cancel()
            self._watch = asyncio.create_task(self._end_when_alone())
        return Facts(socket.gethostname(), os.getpid(), self._needs_token, self._identity)

    async def call(self, method: Method, arguments: tuple[Any, ...]) -> Reply | TunerError:
        """Run a method to its end, whatever becomes of the driver; return what it raises."""
        self._heard()
        self._latest = (method, arguments, datetime.now(UTC))
        self._work = asyncio.create_task(self._bench.run(method, arguments))
        return await self._outcome()

    async def _outcome(self) -> Reply | TunerError:
        assert self._work is not None
        await asyncio.wait([self._work])
        if self._work.cancelled():
            return TunerError("cancelled")
        error = self._work.exception()
        return error if isinstance(error, TunerError) else self._work.result()

    async def cancel(self) -> None:
        """Cancel the call that runs, and wait until it has cleaned up."""
        self._heard()
        self._latest = None
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])

    async def left_over(self) -> LeftOver | None:
        """Return the latest result, once the call that runs has ended; None without one."""
        self._heard()
        if self._latest is None or self._work is None:
            return None
        method, arguments, started_at = self._latest
        outcome = await self._outcome()
        if method in ("prepare", "defaults") or isinstance(outcome, TunerError):
            return None
        return LeftOver(method, arguments[1], outcome.value, started_at)

    async def news(self) -> News:
        """Return what the driver has not heard yet; this also says that there is a driver."""
        self._heard()
        return self._inbox.taken()

    async def close(self) -> None:
        """Stop everything that was started."""
        await self.cancel()
        await self._bench.close()

    def _heard(self) -> None:
        self._was_heard.set()

    async def _end_when_alone(self) -> None:
        while True:
            self._was_heard.clear()
            try:
                async with asyncio.timeout(self._alone_s):
                    await self._was_heard.wait()
            except TimeoutError:
                break
        with suppress(TunerError):
            await self.close()
        os._exit(0)
