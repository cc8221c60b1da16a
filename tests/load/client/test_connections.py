"""Connections are used again while they are fresh and sound, and never else."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tuner.load.client import connections as module
from tuner.load.client.connection import Origin
from tuner.load.client.connections import CannotConnectError, Connections, target_of

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Counted:
    """A server that answers every request alike and counts its connections."""

    url: str = ""
    opened: int = 0


@asynccontextmanager
async def answering(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Counted]:
    counted = Counted()
    talks: list[asyncio.Task[object] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())
        counted.opened += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    counted.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield counted
    finally:
        server.close()
        await asyncio.gather(*filter(None, talks))


async def ask(connections: Connections, url: str, *, keep: bool = True) -> None:
    target, ended = connections.target(url), asyncio.Event()
    connection = await connections.take(target.origin)
    connection.post(target.head + b"\r\n", lambda data, at_s: None, ended.set, keep=keep)
    async with asyncio.timeout(5.0):
        await ended.wait()
    connections.give_back(connection)


@pytest.mark.parametrize(
    ("answer", "keep", "opened"),
    [
        (WHOLE, True, 1),
        (WHOLE, False, 3),
        (WHOLE.replace(b"OK", b"OK\r\nConnection: close"), True, 3),
        (WHOLE + b"more than it said", True, 3),
        (b"nonsense\r\n\r\n", True, 3),
    ],
)
async def test_a_sound_connection_is_used_again(answer: bytes, keep: bool, opened: int) -> None:
    async with answering(answer) as server, Connections(5.0) as connections:
        for _ in range(3):
            await ask(connections, server.url, keep=keep)
        assert server.opened == opened


async def test_an_old_connection_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(WHOLE) as server, Connections(5.0) as connections:
        await ask(connections, server.url)
        monkeypatch.setattr(module, "_KEEP_ALIVE_S", 0.05)
        await asyncio.sleep(0.1)
        await ask(connections, server.url)
        assert server.opened == 2


async def test_a_name_that_is_not_found_cannot_be_connected_to() -> None:
    async with Connections(5.0) as connections:
        for _ in range(2):
            with pytest.raises(CannotConnectError):
                await connections.take(Origin("no-such-host.invalid", 80, is_tls=False))


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that this process trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return made


@pytest.mark.parametrize(("name", "is_believed"), [("127.0.0.1", True), ("else.where", False)])
async def test_a_server_with_tls_has_to_be_who_it_says(
    authority: trustme.CA, name: str, is_believed: bool
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)
    async with answering(WHOLE, tls) as server, Connections(5.0) as connections:
        if not is_believed:
            with pytest.raises(CannotConnectError, match="certificate verify failed"):
                await ask(connections, server.url)
            return
        for _ in range(3):
            await ask(connections, server.url)
        assert server.opened == 1


async def test_a_server_without_tls_cannot_be_connected_to_with_it() -> None:
    async with answering(WHOLE) as server, Connections(5.0) as connections:
        origin = connections.target(server.url.replace("http:", "https:")).origin
        assert origin.is_tls
        with pytest.raises(CannotConnectError):
            await connections.take(origin)


@pytest.mark.parametrize(
    ("url", "origin", "first", "host"),
    [
        ("http://h/v1/c", Origin("h", 80, is_tls=False), "POST /v1/c HTTP/1.1", "h"),
        (
            "https://h:8000/a b?c=d",
            Origin("h", 8000, is_tls=True),
            "POST /a%20b?c=d HTTP/1.1",
            "h:8000",
        ),
        ("https://[::1]", Origin("::1", 443, is_tls=True), "POST / HTTP/1.1", "[::1]"),
    ],
)
def test_where_a_url_leads_to(url: str, origin: Origin, first: str, host: str) -> None:
    found = target_of(url)
    lines = found.head.decode().split("\r\n")
    assert found.origin == origin
    assert (lines[0], lines[1], lines[-1]) == (first, f"Host: {host}", "")


def test_a_name_and_a_password_in_a_url_are_sent() -> None:
    head = target_of("http://me:a%40b@h/").head.decode()
    assert f"Authorization: Basic {base64.b64encode(b'me:a@b').decode()}\r\n" in head


@pytest.mark.parametrize("url", ["ftp://h/", "h:80", "http:///x"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no URL of a server"):
        target_of(url)


async def test_so_many_are_opened_at_once_as_a_servers_queue_surely_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A queue that is full drops the rest, and the kernel tries those again after a second."""
    under_way, most = 0, 0
    start = module.start_connection

    async def counted(*args: object, **options: object) -> object:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await start(*args, **options)  # type: ignore[arg-type]
        finally:
            under_way -= 1

    monkeypatch.setattr(module, "start_connection", counted)
    monkeypatch.setattr(module, "_OPENING_AT_ONCE", 4)
    async with answering(WHOLE) as server, Connections(5.0) as connections:
        await asyncio.gather(*(ask(connections, server.url, keep=False) for _ in range(20)))
        assert (server.opened, most) == (20, 4)
