from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.load.arrival_stamps import StampedResponse, Stamps
from tuner.load.client import ClientLimits, Exchange, completions_url, open_session
from tuner.records import Request, RequestState

LIMITS = ClientLimits()


@settings(deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=6), max_size=12),
    reads=st.lists(st.integers(1, 20), max_size=12),
)
def test_each_byte_gets_the_time_of_the_piece_that_brought_it(
    pieces: list[bytes], reads: list[int]
) -> None:
    """However the pieces are joined when they are read."""
    stamps = Stamps()
    total = 0
    expected = []
    for time_s, piece in enumerate(pieces):
        total += len(piece)
        stamps.note(total, float(time_s))
        expected += [(byte, float(time_s)) for byte in piece]
    left = b"".join(pieces)
    found = []
    for length in [*reads, len(left)]:
        data, left = left[:length], left[length:]
        for part, time_s in stamps.split(data):
            assert part
            found += [(byte, time_s) for byte in part]
    assert found == expected


def test_bytes_that_nobody_stamped_have_the_time_of_reading() -> None:
    stamps = Stamps()
    stamps.note(2, 5.0)
    before_s = time.monotonic()
    (one, one_s), (other, other_s) = stamps.split(b"abcd")
    assert (one, one_s, other) == (b"ab", 5.0, b"cd")
    assert other_s >= before_s
    stamps.note(6, 7.0)
    assert list(stamps.split(b"ef")) == [(b"ef", 7.0)]


async def test_a_token_has_the_time_it_came_and_not_the_time_it_was_read(
    server, make_request: Callable[..., Request], eventually
) -> None:
    """Twenty answers arrive at once, and reading each takes 20 ms."""

    async def script(talk):
        await talk.tokens(1)
        await together.wait()
        await talk.tokens(1, "length")
        await talk.done()

    class Slow(Exchange):
        def __init__(self, request: Request) -> None:
            super().__init__(request, "served", time.monotonic())
            feed = self._stream.feed

            def slowly(data: bytes, now_s: float) -> None:
                if together.is_set():
                    time.sleep(0.02)
                feed(data, now_s)

            self._stream = _Wrapped(self._stream, slowly)

    class _Wrapped:
        def __init__(self, stream: object, feed: object) -> None:
            self._inner = stream
            self.feed = feed

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    together = asyncio.Event()
    server.script = script
    exchanges = [Slow(make_request(i, output_tokens=2)) for i in range(20)]
    async with open_session(LIMITS) as session:
        url = completions_url(server.url)
        tasks = [asyncio.create_task(e.run(session, url, LIMITS)) for e in exchanges]
        await eventually(lambda: all(e.last_token_s for e in exchanges))
        together.set()
        await asyncio.gather(*tasks)
    records = [e.record(0.0) for e in exchanges]
    assert {r.state for r in records} == {RequestState.DONE}
    last_s = np.sort([r.token_times_s[1] for r in records])
    # Read one after another they would be 400 ms apart; four are read between two stamps.
    assert last_s[-1] - last_s[0] < 0.3


async def test_bodies_of_every_form_are_read_as_aiohttp_reads_them() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        form = request.path[1:]
        if form == "empty":
            return web.Response(status=204)
        if form == "whole":
            return web.Response(body=b"x" * 100_000)
        response = web.StreamResponse()
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
    forms = {"empty": b"", "whole": b"x" * 100_000, "streamed": b"y" * 100_000}
    forms["packed"] = forms["streamed"]
    async with open_session(LIMITS) as session:
        for form, body in [*forms.items(), *reversed(forms.items())]:
            began_s = time.monotonic()
            async with session.get(f"http://{host}:{port}/{form}") as response:
                assert isinstance(response, StampedResponse)
                found = b""
                while data := await response.content.readany():
                    parts = list(response.stamps.split(data))
                    assert all(began_s <= at_s <= time.monotonic() for _, at_s in parts)
                    found += b"".join(part for part, _ in parts)
            assert found == body
    await runner.cleanup()


async def test_a_connection_that_ends_early_loses_nothing_that_arrived() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        open_session(LIMITS) as session,
        session.get(f"http://127.0.0.1:{port}/") as response,
    ):
        assert await response.content.readany() == b"hello"
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.readany()
    server.close()
    await server.wait_closed()
