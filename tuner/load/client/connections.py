"""Connections of one load: opened as they are needed, and used again while they are fresh."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
import time
from collections import deque
from functools import partial
from typing import NamedTuple, Self, cast
from urllib.parse import quote, unquote, urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from tuner import __version__
from tuner.load.client.alarms import Alarms
from tuner.load.client.arrival_stamps import ArrivalSocket, WallClock
from tuner.load.client.connection import Connection, Origin
from tuner.load.client.transport import TcpTransport, TlsTransport

# Servers close idle connections (uvicorn after 5 s); ours go first, so that no request is sent
# into a connection that is being closed.
_KEEP_ALIVE_S = 2.0
# After so long without an answer from one address the next one is tried, too (RFC 8305).
_NEXT_ADDRESS_S = 0.25
# A server's listen queue may be no longer: what it drops is tried again after a second. And what
# waits to be connected takes more memory than a stream.
_OPENING_AT_ONCE = 128
_PORTS = {"http": 80, "https": 443}
_KEPT_IN_PATHS = "/%:@!$&'()*+,;=~"


class CannotConnectError(Exception):
    """No connection could be opened; `cause` says why, None if nobody answered in time."""

    def __init__(self, cause: OSError | None) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Target(NamedTuple):
    """Where a URL leads to, and the head of a POST there up to the length of its body."""

    origin: Origin
    head: bytes


class Connections:
    """As many connections as there are requests under way; leaving the context closes all."""

    def __init__(self, connect_s: float) -> None:
        self._connect_s = connect_s
        self.alarms = Alarms()
        self._clock = WallClock()
        self._free: deque[Connection] = deque()  # the longest idle first
        self._targets: dict[str, Target] = {}
        self._addresses: dict[Origin, asyncio.Task[list[AddrInfoType]]] = {}
        self._tls: ssl.SSLContext | None = None
        self._opening = asyncio.Semaphore(_OPENING_AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what is open."""
        for connection in self._free:
            connection.close()
        self._free.clear()
        self.alarms.close()
        for lookup in self._addresses.values():
            lookup.cancel()  # nobody waits for it any more
        await asyncio.sleep(0)  # the event loop closes the sockets in its next round

    def target(self, url: str) -> Target:
        """Return where `url`, http or https, leads to."""
        known = self._targets.get(url)
        if known is None:
            known = self._targets[url] = target_of(url)
        return known

    async def take(self, origin: Origin) -> Connection:
        """Return a free connection, the last used one first, or open one.

        Raises `CannotConnectError`.
        """
        now_s = time.monotonic()
        while self._free and now_s - self._free[0].idle_since_s > _KEEP_ALIVE_S:
            self._free.popleft().close()
        while self._free:
            connection = self._free.pop()
            if connection.is_free and connection.origin == origin:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(None) as limit:
                late = partial(limit.reschedule, 0.0)
                self.alarms.set(late, now_s + self._connect_s)
                try:
                    return await self._open(origin)
                finally:
                    self.alarms.drop(late)
        except TimeoutError:
            raise CannotConnectError(None) from None
        except OSError as error:
            raise CannotConnectError(error) from error

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer is over for the next request; close another."""
        connection.leave()
        if connection.is_free:
            self._free.append(connection)

    async def _open(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()

        def make_socket(address: AddrInfoType) -> ArrivalSocket:
            family, kind, protocol, *_ = address
            return ArrivalSocket(self._clock, family, kind, protocol)

        async with self._opening:
            made = await start_connection(
                await self._resolved(origin),
                happy_eyeballs_delay=_NEXT_ADDRESS_S,
                interleave=1,
                loop=loop,
                socket_factory=make_socket,
            )
        assert isinstance(made, ArrivalSocket)
        connection = Connection(origin)
        if not origin.is_tls:
            connection.opened(TcpTransport(loop, made, connection))
            return connection
        self._tls = self._tls or ssl.create_default_context()
        transport = TlsTransport(
            loop,
            made,
            connection,
            context=self._tls,
            host=origin.host,
        )
        await transport.shake_hands()
        connection.opened(transport)
        return connection

    async def _resolved(self, origin: Origin) -> list[AddrInfoType]:
        """Return the addresses of a host; a name is looked up once in a load."""
        try:
            version = ipaddress.ip_address(origin.host).version
        except ValueError:
            pass
        else:
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            place = (origin.host, origin.port)
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)]
        known = self._addresses.get(origin)
        if known is None or (known.done() and known.exception() is not None):
            known = self._addresses[origin] = asyncio.create_task(_looked_up(origin))
        return await asyncio.shield(known)  # others wait for it, too


async def _looked_up(origin: Origin) -> list[AddrInfoType]:
    found = await asyncio.get_running_loop().getaddrinfo(
        origin.host, origin.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    return cast(list[AddrInfoType], found)  # of AF_INET and AF_INET6 alone, for TCP


def target_of(url: str) -> Target:
    """Return where `url`, http or https, leads to; raises `ValueError` for another."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"'{url}' is no URL of a server; write http://HOST:PORT")
    port = parts.port or _PORTS[parts.scheme]
    shown = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port != _PORTS[parts.scheme]:
        shown += f":{port}"
    path = quote(parts.path or "/", safe=_KEPT_IN_PATHS)
    lines = [
        f"POST {path}{'?' + parts.query if parts.query else ''} HTTP/1.1",
        f"Host: {shown}",
        f"User-Agent: tuner/{__version__}",
        "Accept: */*",
        # A compressed stream would deliver tokens only when the compressor has enough of them.
        "Accept-Encoding: identity",
    ]
    if parts.username is not None:
        said = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {base64.b64encode(said.encode()).decode()}")
    head = "".join(f"{line}\r\n" for line in lines)
    return Target(Origin(parts.hostname, port, parts.scheme == "https"), head.encode())
