"""When bytes arrived, noted before anything else is done with them.

An engine's step answers all its requests at once. Were each chunk read to the end before the next
is looked at, the last of 64 would seem milliseconds late. So what the kernel hands over is stamped
and put aside, and a few chunks at a time are then taken on: between those few, whatever else has
arrived is stamped.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.streams import EMPTY_PAYLOAD

# Fewer stamp more exactly, more save turns of the event loop.
_CHUNKS_PER_TURN = 8
# asyncio asks for 256 KiB at each read: a buffer that costs five times the read itself, because the
# C library maps and unmaps memory for it.
_READ_BYTES = 2**16


class Stamps:
    """Which bytes of one response's body had arrived when."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()
        self._taken = 0

    def note(self, body_bytes: int, now_s: float) -> None:
        """Note that so many bytes of the body, counted from its start, had arrived."""
        self._marks.append((body_bytes, now_s))

    def split(self, data: bytes) -> Iterator[tuple[bytes, float]]:
        """Yield the next bytes of the body in pieces, each with its time."""
        start = 0
        marks = self._marks
        while start < len(data) and marks:
            end_of_piece, arrived_s = marks[0]
            end = end_of_piece - self._taken
            if end > len(data) - start:
                end = len(data) - start
            else:
                marks.popleft()
            if end > 0:
                yield data[start : start + end], arrived_s
                self._taken += end
                start += end
        if start < len(data):
            self._taken += len(data) - start
            yield data[start:], time.monotonic()


class _Inbox:
    """What has arrived on any connection and has not been taken on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[_StampingHandler] = deque()

    def put(self, handler: _StampingHandler) -> None:
        if not self._waiting:
            self._loop.call_soon(self._take_some)
        self._waiting.append(handler)

    def _take_some(self) -> None:
        waiting = self._waiting
        for _ in range(min(_CHUNKS_PER_TURN, len(waiting))):
            waiting.popleft().take_one()
        if waiting:
            self._loop.call_soon(self._take_some)


class _StampingHandler(ResponseHandler):
    """aiohttp's reader of a connection, with a stamp on all that arrives."""

    def __init__(self, inbox: _Inbox, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.stamps = Stamps()
        self._inbox = inbox
        self._held: deque[tuple[bytes, float]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # uvloop and TLS read in their own ways
            transport.max_size = _READ_BYTES

    def set_response_params(self, **params: Any) -> None:
        # Called once for each request, before it is answered.
        self.stamps = Stamps()
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if not data:
            super().data_received(data)  # aiohttp's own call, to go on after a pause
            return
        self._held.append((data, time.monotonic()))
        self._inbox.put(self)

    def eof_received(self) -> None:
        self._take_all()
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._take_all()
        super().connection_lost(exc)

    def _take_all(self) -> None:
        while self._held:
            self.take_one()

    def take_one(self) -> None:
        """Hand the oldest piece to aiohttp; nothing is left of a connection that has ended."""
        if not self._held:
            return
        data, arrived_s = self._held.popleft()
        if self.transport is None:
            return  # closed by us
        super().data_received(data)
        payload = self._payload
        if payload is not None and payload is not EMPTY_PAYLOAD:
            self.stamps.note(payload.total_bytes, arrived_s)


class StampedResponse(aiohttp.ClientResponse):
    """A response that knows when the bytes of its body arrived."""

    stamps: Stamps

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Begin to read; after the last byte there is no connection to ask any more."""
        handler = connection.protocol
        self.stamps = handler.stamps if isinstance(handler, _StampingHandler) else Stamps()
        return await super().start(connection)


class StampingConnector(aiohttp.TCPConnector):
    """Opens connections that stamp; where aiohttp opens others, bytes count as they are read."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        loop = asyncio.get_running_loop()
        make: Any = functools.partial(_StampingHandler, _Inbox(loop), loop)
        self._factory = make
