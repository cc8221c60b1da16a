"""Bodies, however they are framed and cut, arrive whole, once, with their times."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from itertools import pairwise

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.load.client.body_stream import Body, Chunks, StreamedResponse
from tuner.load.client.client import ClientLimits, open_session

LIMITS = ClientLimits()
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@settings(deadline=None)
@given(
    bodies=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    tail=st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"zz\r\n", b"3;e=1\r\nabc\r\n"]),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_whole_chunks_are_read_and_the_rest_begins_with_another_chunk(
    bodies: list[bytes], tail: bytes, cuts: list[int]
) -> None:
    wire = b"".join(map(chunk, bodies)) + tail
    places = [0, *sorted(min(c, len(wire)) for c in cuts), len(wire)]
    chunks, found, odd = Chunks(), b"", b""
    for start, end in pairwise(places):
        if odd:
            odd += wire[start:end]  # aiohttp reads on
            continue
        part, rest = chunks.feed(wire[start:end])
        found += part
        odd = rest or b""
    assert found == b"".join(bodies)
    assert odd == tail


@pytest.mark.parametrize("odd", [b"5\r\nhelloXX", b"-5\r\n", b"\r\n", b"f" * 300_000])
def test_what_is_no_chunk_is_left_to_aiohttp(odd: bytes) -> None:
    chunks = Chunks()
    assert chunks.feed(chunk(b"ok") + odd) == (b"ok", odd)


def test_what_came_before_the_reader_is_kept_for_it() -> None:
    body, got = Body(), []
    body.put(b"a", 1.0)
    body.deliver(lambda data, at_s: got.append((data, at_s)), lambda: got.append("end"))
    body.put(b"b", 2.0)
    body.end(None)
    body.end(OSError())
    assert got == [(b"a", 1.0), (b"b", 2.0), "end"]
    assert (body.ended, body.error) == (True, None)
    late: list[object] = []
    body.deliver(lambda data, at_s: None, lambda: late.append("end"))
    assert late == ["end"]


async def fetch(session: aiohttp.ClientSession, url: str) -> bytes:
    began_s = time.monotonic()
    found: list[bytes] = []
    times_s: list[float] = []
    ended = asyncio.Event()

    def take(data: bytes, arrived_s: float) -> None:
        found.append(data)
        times_s.append(arrived_s)

    async with session.get(url) as response:
        assert isinstance(response, StreamedResponse)
        if response.status != 200:
            return await response.read()
        response.body.deliver(take, ended.set)
        async with asyncio.timeout(5.0):
            await ended.wait()
        if response.body.error is not None:
            raise response.body.error
    assert all(began_s - 1e-3 <= at_s <= time.monotonic() for at_s in times_s)
    return b"".join(found)


async def test_bodies_of_every_form_are_read_as_aiohttp_reads_them() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        form = request.path[1:]
        if form == "empty":
            return web.Response(status=204)
        if form == "refused":
            return web.Response(status=400, body=b"no")
        if form == "whole":
            return web.Response(body=b"x" * 100_000)
        response = web.StreamResponse(status=503 if form == "refused in parts" else 200)
        if form == "packed":
            response.enable_compression(web.ContentCoding.gzip)
        await response.prepare(request)
        for _ in range(50):
            await response.write(b"y" * 2000)
        return response

    app = web.Application()
    app.router.add_get("/{form}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    forms = {"empty": b"", "refused": b"no", "whole": b"x" * 100_000, "streamed": b"y" * 100_000}
    forms["packed"] = forms["refused in parts"] = forms["streamed"]
    async with open_session(LIMITS) as session:
        for form, body in [*forms.items(), *reversed(forms.items())]:
            assert await fetch(session, f"http://{host}:{port}/{form}") == body, form
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
        async with open_session(LIMITS) as session:
            return await fetch(session, f"http://127.0.0.1:{port}/")
    finally:
        await closed.wait()
        server.close()
        await server.wait_closed()


END = b"0\r\n\r\n"


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
        # aiohttp forgets a body when it closes the connection, inside the read of its last byte
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
    ],
)
async def test_a_body_that_breaks_off_is_an_error(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(aiohttp.ClientError):
        await wire(*pieces)
