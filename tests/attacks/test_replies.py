"""What a hostile server answers: gigabytes, packed ones, and redirects to somebody else."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from tuner.load.client.client import ClientLimits, Exchange
from tuner.load.client.connections import Connections
from tuner.records import Request, RequestState
from tuner.servers.openai.api import OpenAiApi
from tuner.servers.openai.replies import MOST_BYTES
from tuner.servers.server import Endpoint, NotAnsweredError, ServerUnreachableError
from tuner.servers.vllm.api import VllmApi

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PEAK_BYTES = 100 * 2**20


@cache
def bomb() -> bytes:
    """300 MB, of which never more than 3 are in memory."""
    packing = zlib.compressobj(1, wbits=31)  # a gzip file's
    packed = [packing.compress(text) for text in (b"[", *[b"{}," * 2**20] * 100, b"{}]")]
    return b"".join(packed) + packing.flush()


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    host, port = site._server.sockets[0].getsockname()  # type: ignore[union-attr]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def packed(request: web.Request) -> web.StreamResponse:
    return web.Response(
        body=bomb(), headers={"Content-Encoding": "gzip", "Content-Type": "application/json"}
    )


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        while True:
            await response.write(b'[{"id":"' + b"x" * 2**16)
    except ConnectionError:
        return response


@pytest.mark.parametrize("handler", [packed, endless])
async def test_a_page_of_gigabytes_is_no_answer(handler: Handler) -> None:
    """Break 8: 3 MB of gzip took 3.3 GB, an endless page all memory there was."""
    api = VllmApi()
    async with answering(handler) as url, aiohttp.ClientSession() as session:
        tracemalloc.start()
        began_s = time.monotonic()
        try:
            for ask in (api.models, api.sample, api.settings):
                with pytest.raises(ServerUnreachableError, match="MiB"):
                    await ask(session, url)
            with pytest.raises(NotAnsweredError):
                await api.greedy_answer(session, url, "m", [1], 4)
            assert await api.version(session, url) is None
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak_bytes < PEAK_BYTES
    assert time.monotonic() - began_s < 60.0


async def test_a_packed_page_of_a_decent_size_is_read() -> None:
    page = gzip.compress(b"vllm:num_requests_running 3.0\n" * 100)

    async def small(request: web.Request) -> web.StreamResponse:
        return web.Response(body=page, headers={"Content-Encoding": "gzip"})

    async with answering(small) as url, aiohttp.ClientSession() as session:
        assert (await VllmApi().sample(session, url)).running == 300.0
    assert MOST_BYTES >= 2**20


async def test_a_packed_stream_of_tokens_is_a_failed_request() -> None:
    """Break 8: gzip in the stream took 0.6 GB, with a traceback of asyncio."""

    async def stream(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/event-stream"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(bomb())
        return response

    async with answering(stream) as url:
        tracemalloc.start()
        try:
            record = await asked(url)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert record is RequestState.FAILED
    assert peak_bytes < PEAK_BYTES


async def asked(url: str) -> RequestState:
    limits = ClientLimits()
    server = Endpoint(OpenAiApi(), url, "m")
    async with Connections(limits.connect_s) as connections:
        exchange = Exchange(
            Request(0, 0.0, np.arange(3, dtype=np.int32), 4), server, time.monotonic()
        )
        async with asyncio.timeout(60):
            await exchange.run(connections, limits)
    return exchange.record(time.monotonic()).state


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """Break 14: the prompts went to another host."""
    reached = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        reached.append(request.path)
        return web.json_response({"data": [{"id": "m"}]})

    async with answering(elsewhere) as other:

        async def redirect(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={"Location": other + request.path})

        async with answering(redirect) as url, aiohttp.ClientSession() as session:
            api = VllmApi()
            assert not await api.is_ready(session, url)
            for ask in (api.models, api.sample, api.settings):
                with pytest.raises(ServerUnreachableError, match="redirect"):
                    await ask(session, url)
            assert await asked(url) is RequestState.FAILED
    assert reached == []
