"""Transport: a connected TCP socket that is read as soon as it can be, also through TLS.

The transports of asyncio and uvloop would do, but for the time: they hand over bytes without the
kernel's timestamp.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Protocol

from tuner.load.client.arrival_stamps import ArrivalSocket

# A larger one costs more than the read: the C library maps and unmaps memory for it.
_READ_BYTES = 2**16


class Receiver(Protocol):
    """Who takes what a transport reads."""

    def received(self, data: bytes, arrived_s: float) -> None:
        """Take what arrived at a monotonic time, s."""
        ...

    def lost(self, error: Exception | None) -> None:
        """Take in, once, that nothing more comes, and why: None if it was closed."""
        ...


class Transport(Protocol):
    """What a connection sends through."""

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        ...

    def write(self, data: bytes) -> None:
        """Send, at once as far as the kernel takes it."""
        ...

    def abort(self) -> None:
        """Close at once; the receiver is told soon."""
        ...


class TcpTransport:
    """Plain TCP."""

    __slots__ = ("_loop", "_receiver", "_socket", "_unsent", "is_closing")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connected: ArrivalSocket, receiver: Receiver
    ) -> None:
        self.is_closing = False
        self._loop, self._socket, self._receiver = loop, connected, receiver
        self._unsent = b""
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(connected, self._read)

    def write(self, data: bytes) -> None:
        """Send, at once as far as the kernel takes it."""
        if self.is_closing:
            return
        waits = bool(self._unsent)
        self._unsent += data
        if not waits:
            self._send()

    def abort(self, error: Exception | None = None) -> None:
        """Close at once."""
        if self.is_closing:
            return
        self.is_closing = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._loop.call_soon(self._end, error)

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.abort(error)
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._socket, self._send)
        else:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            data, arrived_s = self._socket.receive(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.abort(error)
            return
        if not data:
            self.abort()
            return
        try:
            self._receiver.received(data, arrived_s)
        except BaseException:  # a fault of ours: nobody shall wait for the rest
            self.abort()
            raise

    def _end(self, error: Exception | None) -> None:
        self._socket.close()
        self._receiver.lost(error)


class TlsTransport:
    """TLS over TCP: what arrives has the time of the segment that completed its record."""

    __slots__ = ("_handshake", "_incoming", "_outgoing", "_receiver", "_tcp", "_tls")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: ArrivalSocket,
        receiver: Receiver,
        *,
        context: ssl.SSLContext,
        host: str,
    ) -> None:
        self._receiver = receiver
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._handshake: asyncio.Future[None] = loop.create_future()
        self._tcp = TcpTransport(loop, connected, self)

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._tcp.is_closing

    async def shake_hands(self) -> None:
        """Wait until both sides are agreed; raises `OSError` if they cannot be."""
        try:
            self._go_on_with_handshake()
            await self._handshake
        except BaseException:
            self.abort()
            raise

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        self._tls.write(data)
        self._send()

    def abort(self) -> None:
        """Close at once."""
        self._tcp.abort()

    def _send(self) -> None:
        if self._outgoing.pending:
            self._tcp.write(self._outgoing.read())

    def _go_on_with_handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._handshake.set_exception(error)
        else:
            self._handshake.set_result(None)
        self._send()  # also the alert that says why not

    def received(self, data: bytes, arrived_s: float) -> None:
        """Decrypt what arrived, and hand it on."""
        self._incoming.write(data)
        if not self._handshake.done():
            self._go_on_with_handshake()
        try:
            while self._handshake.done() and not self.is_closing:
                found = self._tls.read(_READ_BYTES)
                if not found:  # the other side has said that it ends
                    self.abort()
                    return
                self._receiver.received(found, arrived_s)
        except ssl.SSLWantReadError:
            self._send()  # what TLS answers by itself
        except ssl.SSLError as error:
            self._tcp.abort(error)

    def lost(self, error: Exception | None) -> None:
        """Hand on that nothing more comes."""
        if not self._handshake.done():
            self._handshake.set_exception(error or ConnectionResetError("the server closed it"))
        self._receiver.lost(error)
