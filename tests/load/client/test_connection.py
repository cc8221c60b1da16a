"""What servers send, in every form and in pieces, is read with its times."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from aiohttp import web

from tuner.load.client.connections import Connections
from tuner.load.client.framing import HttpError

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
NOTHING = b"Content-Length: 0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def fetch(connections: Connections, url: str) -> tuple[int | None, bytes]:
    """Return the status and the body of an answer; raises why it broke off."""
    began_s = time.monotonic()
    found: list[bytes] = []
    times_s: list[float] = []
    ended = asyncio.Event()

    def take(data: bytes, arrived_s: float) -> None:
        found.append(data)
        times_s.append(arrived_s)

    target = connections.target(url)
    connection = await connections.take(target.origin)
    try:
        connection.post(target.head + NOTHING, take, ended.set, keep=True)
        async with asyncio.timeout(5.0):
            await ended.wait()
    finally:
        connections.give_back(connection)
    if connection.error is not None:
        raise connection.error
    assert all(began_s - 1e-3 <= at_s <= time.monotonic() for at_s in times_s)
    return connection.status, b"".join(found)


async def test_bodies_of_every_form_are_read() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        form = request.path[1:]
        if form == "empty":
            return web.Response(status=204)
        if form == "refused":
            return web.Response(status=400, body=b"no")
        if form == "whole":
            return web.Response(body=b"x" * 1_000_000)
        response = web.StreamResponse(status=503 if form == "refused%20in%20parts" else 200)
        await response.prepare(request)
        for _ in range(50):
            await response.write(b"y" * 2000)
        return response

    app = web.Application()
    app.router.add_post("/{form}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    forms = {"empty": b"", "refused": b"no", "whole": b"x" * 1_000_000, "streamed": b"y" * 100_000}
    forms["refused in parts"] = forms["streamed"]
    async with Connections(5.0) as connections:
        for form, body in [*forms.items(), *reversed(forms.items())]:
            _, found = await fetch(connections, f"http://localhost:{port}/{form}")
            assert found == body, form
    await runner.cleanup()


async def wire(*pieces: bytes) -> bytes:
    """Return the body of an answer that is written in these pieces, and then closed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):  # a client that has seen enough goes away
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        closed.set()

    closed = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with Connections(5.0) as connections:
            return (await fetch(connections, f"http://127.0.0.1:{port}/"))[1]
    finally:
        await closed.wait()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD, chunk(b"hello"), END),
        (HEAD + chunk(b"hello") + END,),
        (HEAD[:9], HEAD[9:-2], HEAD[-2:] + b"5", b"\r\nhel", b"lo\r", b"\n0\r", b"\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD, chunk(b"hello"), END),
        (HEAD, b"2;extension\r\nhe\r\n", chunk(b"llo"), END),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"hel", b"lo"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b"llo"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", b"hello"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", b"he", b"llo"),
        (HEAD.replace(b"OK", b"OK\r\nConnection: close"), chunk(b"hello"), b"0\r\n", b"\r\n"),
    ],
)
async def test_a_body_in_pieces(pieces: tuple[bytes, ...]) -> None:
    assert await wire(*pieces) == b"hello"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD, chunk(b"hello")),
        (HEAD, chunk(b"hello"), b"5\r\nhel"),
        (HEAD, chunk(b"hello"), b"zz\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",),
        (HEAD[:20],),
        (b"x" * 70_000,),
        (),
    ],
)
async def test_a_body_that_breaks_off_is_an_error(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises((HttpError, OSError)):
        await wire(*pieces)
