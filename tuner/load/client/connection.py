"""HTTP connection: posts a request, and hands over the body of its answer with times of arrival.

Each piece goes straight to the receiver, inside the read itself. Nothing else is kept of an answer:
a thousand streams are open at once, and most of a general client's objects would only wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from tuner.load.client.framing import Framing, HttpError, UntilClosed, read_head
from tuner.load.client.transport import Transport

Receiver = Callable[[bytes, float], None]

_MAX_HEAD_BYTES = 2**16
_END_OF_HEAD = b"\r\n\r\n"


class Origin(NamedTuple):
    """What a connection leads to."""

    host: str
    port: int
    is_tls: bool


class Connection:
    """One connection, which answers one request at a time.

    Attributes:
        status: that of the present answer, None until its head is here.
        ended: whether the answer is over; `error` says why before its end, None else.
        idle_since_s: when the last answer was over.
    """

    __slots__ = (
        "_framing",
        "_head",
        "_is_kept",
        "_on_end",
        "_receive",
        "_transport",
        "ended",
        "error",
        "idle_since_s",
        "origin",
        "status",
    )

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._transport: Transport | None = None
        self._head = b""  # as far as it is here
        self._framing: Framing | None = None
        self._receive: Receiver | None = None
        self._on_end: Callable[[], None] | None = None
        self._is_kept = True
        self.status: int | None = None
        self.ended = True
        self.error: Exception | None = None
        self.idle_since_s = 0.0

    @property
    def is_free(self) -> bool:
        """Whether another request can be sent."""
        is_open = self._transport is not None and not self._transport.is_closing
        return is_open and self.ended and self._is_kept and self.error is None

    def post(
        self, request: bytes, receive: Receiver, on_end: Callable[[], None], *, keep: bool
    ) -> None:
        """Send a request, head and body; without `keep` it is the last one.

        `receive` is called with all bytes of the body and the monotonic time of their arrival, and
        `on_end` after them.
        """
        assert self._transport is not None, "it was opened"
        self._head, self._framing, self.status = b"", None, None
        self.ended, self.error, self._is_kept = False, None, keep
        self._receive, self._on_end = receive, on_end
        self._transport.write(request)

    def leave(self) -> None:
        """Forget the receiver; a connection whose answer is not over is closed."""
        self._receive = self._on_end = None
        self.idle_since_s = time.monotonic()
        if not self.is_free:
            self.close()

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def opened(self, transport: Transport) -> None:
        """Take in that it is open."""
        self._transport = transport

    def received(self, data: bytes, arrived_s: float) -> None:
        """Hand over what is of the body."""
        if self.ended:
            self.close()  # nothing was asked for
            return
        try:
            if self._framing is None:
                data = self._read_head(self._head + data)
            framing = self._framing
            if framing is None:
                return
            found = framing.feed(data) if data else b""
        except HttpError as error:
            self._end(error)
            return
        if found and self._receive is not None:
            self._receive(found, arrived_s)
        if framing.ended:
            self._is_kept = self._is_kept and not framing.has_excess
            self._end(None)

    def lost(self, error: Exception | None) -> None:
        """Take in that it is closed, which may be the end of a body."""
        if error is None and not isinstance(self._framing, UntilClosed):
            error = HttpError("the server closed it")
        self._end(error)

    def _read_head(self, data: bytes) -> bytes:
        """Read the head, if it is complete; return what follows it."""
        while True:
            head, end, rest = data.partition(_END_OF_HEAD)
            if not end:
                self._head = data
                if len(data) > _MAX_HEAD_BYTES:
                    raise HttpError(f"a head of more than {_MAX_HEAD_BYTES} bytes")
                return b""
            found = read_head(head)
            if found.status >= 200:
                break
            data = rest  # after a 1xx comes another
        self._head, self.status, self._framing = b"", found.status, found.framing
        self._is_kept = self._is_kept and found.keeps_connection
        return rest

    def _end(self, error: Exception | None) -> None:
        if self.ended:
            return
        self.ended, self.error = True, error
        if self._on_end is not None:
            self._on_end()
