"""A server that streams completions at known times and misbehaves as each test says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from tuner.records import Request


class Talk:
    """One answer under way, in the hands of a test's script."""

    def __init__(self, http: web.Request, asked: dict[str, Any]) -> None:
        self.http = http
        self.asked = asked
        self.tokens_asked: int = asked["max_tokens"]
        self.wrote_s: list[float] = []
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})

    async def raw(self, data: bytes) -> None:
        if not self.response.prepared:
            await self.response.prepare(self.http)
        await self.response.write(data)

    async def event(self, **event: Any) -> None:
        await self.raw(b"data: " + json.dumps(event).encode() + b"\n\n")

    async def tokens(self, count: int, finish_reason: str | None = None) -> None:
        self.wrote_s += [time.monotonic()] * count
        ids = list(range(300, 300 + count))
        await self.event(choices=[{"token_ids": ids, "text": "", "finish_reason": finish_reason}])

    async def usage(self, completion: int, prompt: int | None = None) -> None:
        counted = len(self.asked["prompt"]) if prompt is None else prompt
        usage = {"prompt_tokens": counted, "completion_tokens": completion}
        await self.event(choices=[], usage=usage)

    async def done(self) -> None:
        await self.raw(b"data: [DONE]\n\n")

    async def answer(self, *, per_token_s: float = 0.0, per_chunk: int = 1) -> None:
        """Behave well."""
        left = self.tokens_asked
        while left:
            await asyncio.sleep(per_token_s)
            count = min(per_chunk, left)
            left -= count
            await self.tokens(count, "length" if left == 0 else None)
        await self.usage(self.tokens_asked)
        await self.done()


Script = Callable[[Talk], Awaitable[web.StreamResponse | None]]


async def answer_well(talk: Talk) -> None:
    await talk.answer()


class ScriptedServer:
    """Answers completions and chats by its `script`."""

    def __init__(self) -> None:
        self.script: Script = answer_well
        self.url = ""
        self.talks: list[Talk] = []
        self.connections: set[Any] = set()
        self.disconnected = 0
        self.under_way = 0
        self.most_under_way = 0

    async def handle(self, http: web.Request) -> web.StreamResponse:
        talk = Talk(http, await http.json())
        self.talks.append(talk)
        self.connections.add(http.transport.get_extra_info("peername"))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self.script(talk) or talk.response
        except (asyncio.CancelledError, ConnectionError):
            self.disconnected += 1
            raise
        finally:
            self.under_way -= 1


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    app = web.Application()
    app.router.add_post("/v1/completions", scripted.handle)
    app.router.add_post("/v1/chat/completions", scripted.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    scripted.url = f"http://{host}:{port}"
    yield scripted
    await runner.cleanup()


@pytest.fixture
def make_request() -> Callable[..., Request]:
    def make(request_id: int = 0, output_tokens: int = 5, arrival_s: float = 0.0) -> Request:
        prompt = np.arange(300, 308, dtype=np.int32)
        return Request(request_id, arrival_s, prompt, output_tokens)

    return make


@pytest.fixture
def dead_url(unused_tcp_port: int) -> str:
    """Where nobody listens."""
    return f"http://127.0.0.1:{unused_tcp_port}"


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until something holds; fails after five seconds."""

    async def wait(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5.0):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    return wait
