"""Streamed response body: each piece is handed over on arrival, with its time of arrival.

aiohttp connects, sends and reads heads and the ends of bodies. The whole chunks in between go
straight to the reader of the body, inside the read itself: through aiohttp's parser, buffer and a
task that is woken for each of them they cost three times as much.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from tuner.load.client.arrival_stamps import ArrivalSocket, WallClock

# asyncio asks for 256 KiB at each read: a buffer that costs five times the read itself, because the
# C library maps and unmaps memory for it.
_READ_BYTES = 2**16
_MAX_HEAD_BYTES = 2**16
_MAX_CHUNK_BYTES = 2**18
_END_OF_HEAD = b"\r\n\r\n"

Receiver = Callable[[bytes, float], None]


class Body:
    """The bytes of one body, buffered until `deliver` names a receiver."""

    def __init__(self) -> None:
        self.ended = False
        self.error: BaseException | None = None  # why it ended early
        self._early: list[tuple[bytes, float]] = []
        # hands over the next bytes: the receiver itself, as it is called for each chunk
        self.put: Receiver = lambda data, arrived_s: self._early.append((data, arrived_s))
        self._on_end: Callable[[], None] | None = None

    def end(self, error: BaseException | None) -> None:
        """Note the end of the body."""
        if self.ended:
            return
        self.ended, self.error = True, error
        if self._on_end is not None:
            self._on_end()

    def deliver(self, receive: Receiver, on_end: Callable[[], None]) -> None:
        """Call `receive` with all bytes and the monotonic time of their arrival, then `on_end`."""
        early, self._early = self._early, []
        self.put, self._on_end = receive, on_end
        for data, arrived_s in early:
            receive(data, arrived_s)
        if self.ended:
            on_end()


class Chunks:
    """Reads whole chunks of a chunked body, and leaves the last and everything odd to aiohttp."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return the body in `data`, and what begins with a chunk that is not for this reader.

        After that it has nothing more to read.
        """
        if self._rest:
            data = self._rest + data
        elif (whole := _whole_chunk(data)) is not None:
            return whole, None
        found: list[bytes] = []
        at = 0
        while (line_end := data.find(b"\r\n", at)) >= 0:
            size = _chunk_size(data[at:line_end])
            end = line_end + 2 + size
            if size <= 0 or size > _MAX_CHUNK_BYTES:
                return b"".join(found), data[at:]
            if len(data) < end + 2:
                break
            if data[end : end + 2] != b"\r\n":
                return b"".join(found), data[at:]
            found.append(data[line_end + 2 : end])
            at = end + 2
        if line_end < 0 and len(data) - at > _MAX_CHUNK_BYTES:
            return b"".join(found), data[at:]
        self._rest = data[at:]
        return found[0] if len(found) == 1 else b"".join(found), None


def _whole_chunk(data: bytes) -> bytes | None:
    """Return the body of data that is one chunk from end to end, as most is; None for all else."""
    begin = data.find(b"\r\n") + 2
    end = len(data) - 2
    if not 2 < begin < end <= _MAX_CHUNK_BYTES or data[end:] != b"\r\n":
        return None
    return data[begin:end] if _chunk_size(data[: begin - 2]) == end - begin else None


def _chunk_size(line: bytes) -> int:
    """Return the size that begins a chunk, or -1."""
    try:
        return int(line, 16)
    except ValueError:
        return -1  # an extension, or no chunk at all


class _Handler(ResponseHandler):
    """aiohttp's reader of a connection; what it has of a good answer's body goes to `body`."""

    def __init__(
        self, sockets: WeakValueDictionary[int, ArrivalSocket], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(loop)
        self.body = Body()
        self._sockets = sockets
        self._socket: ArrivalSocket | None = None
        self._head: bytes | None = b""  # of this response, as far as it is here; None: complete
        self._streams = False
        self._chunks: Chunks | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        found = transport.get_extra_info("socket")
        self._socket = None if found is None else self._sockets.get(found.fileno())
        if hasattr(transport, "max_size"):  # uvloop and TLS read in their own ways
            transport.max_size = _READ_BYTES

    def set_response_params(self, **params: Any) -> None:
        # Called once for each request, before it is answered.
        self.body, self._head, self._streams, self._chunks = Body(), b"", False, None
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        arrived_s = None if self._socket is None else self._socket.take_arrival_s()
        if arrived_s is None:
            arrived_s = time.monotonic()
        while self._head is not None and data:
            data = self._read_head(self._head + data)
        if self._chunks is not None and data:
            found, odd = self._chunks.feed(data)
            if found:
                self.body.put(found, arrived_s)
            if odd is None:
                return
            self._chunks, data = None, odd
        payload = self._payload  # the end of a response can take it away with the connection
        super().data_received(data)
        self._drain(payload, arrived_s)
        if self._streams and (problem := self.exception()) is not None:
            self.body.end(aiohttp.ClientPayloadError(f"this is not HTTP: {problem}"))

    def _read_head(self, data: bytes) -> bytes:
        """Let aiohttp read the head; return what follows it."""
        head, end, rest = data.partition(_END_OF_HEAD)
        if not end:
            self._head = data
            if len(data) > _MAX_HEAD_BYTES:
                self._head = None
                return data  # aiohttp says what is wrong with it
            return b""
        self._head = b"" if head[8:10] == b" 1" else None  # after a 1xx comes another
        if self._head is None:
            fields = head.lower()
            self._streams = head[8:12] == b" 200"
            is_chunked = b"\r\ntransfer-encoding: chunked" in fields
            if self._streams and is_chunked and b"\r\ncontent-encoding:" not in fields:
                self._chunks = Chunks()
        super().data_received(head + end)
        return rest

    def _drain(self, payload: StreamReader | None, arrived_s: float) -> None:
        """Take what aiohttp read of a body that is streamed."""
        if not self._streams or payload is None:
            return
        if payload is EMPTY_PAYLOAD or payload.exception() is not None:
            self.body.end(payload.exception())
            return
        if data := payload.read_nowait():
            self.body.put(data, arrived_s)
        if payload.at_eof():
            self.body.end(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head:
            super().data_received(self._head)
        payload = self._payload
        super().connection_lost(exc)
        self._drain(payload, time.monotonic())
        self.body.end(exc)


class StreamedResponse(aiohttp.ClientResponse):
    """A response whose body, if its status is 200, is read from `body` and not from `content`."""

    body: Body

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Begin to read; after the last byte there is no connection to ask any more."""
        handler = connection.protocol
        assert isinstance(handler, _Handler), "StreamingConnector makes the connections"
        self.body = handler.body
        return await super().start(connection)


class StreamingConnector(aiohttp.TCPConnector):
    """Opens connections that stream bodies and know when bytes arrived."""

    def __init__(self, **options: Any) -> None:
        clock = WallClock()
        sockets: WeakValueDictionary[int, ArrivalSocket] = WeakValueDictionary()

        def make_socket(address: AddrInfoType) -> ArrivalSocket:
            family, kind, protocol, *_ = address
            made = ArrivalSocket(clock, family, kind, protocol)
            sockets[made.fileno()] = made
            return made

        super().__init__(socket_factory=make_socket, **options)
        make: Any = functools.partial(_Handler, sockets, asyncio.get_running_loop())
        self._factory = make
