"""Bringing a server back to where a fresh one is, on a small server that misbehaves on request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tuner.configuration import Configuration
from tuner.servers import ready as live_server
from tuner.servers.launch import RunningServer
from tuner.servers.ready import make_ready
from tuner.servers.server import NotReusableError
from tuner.servers.vllm.adjustable import VllmLimits, VllmLimitsChannel
from tuner.servers.vllm.api import VllmApi
from tuner.servers.vllm.live_limits import Limits, LimitsFile

MOST = Limits(32, 2048)


class Engine:
    """A server whose engine steps when it is asked for tokens."""

    def __init__(self, file: LimitsFile) -> None:
        self.file = file
        self.status = 200
        self.made: int | None = None
        self.running = [0]
        self.takes_limits = True
        self.takes = MOST
        self.reset_answers = ['{"success":true}']
        self.calls: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/reset_prefix_cache", self.reset)
        return app

    async def completions(self, request: web.Request) -> web.Response:
        self.calls.append("canary")
        asked = self.file.wanted_after(0)
        if asked is not None and self.takes_limits:
            self.file.acknowledge(asked[0], asked[1].under(self.takes))
        tokens = (await request.json())["max_tokens"]
        usage = {"completion_tokens": tokens if self.made is None else self.made}
        return web.json_response({"usage": usage}, status=self.status)

    async def metrics(self, _: web.Request) -> web.Response:
        self.calls.append("metrics")
        running = self.running.pop(0) if len(self.running) > 1 else self.running[0]
        return web.Response(
            text=f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\n"
        )

    async def reset(self, _: web.Request) -> web.Response:
        self.calls.append("reset")
        answers = self.reset_answers
        return web.Response(text=answers.pop(0) if len(answers) > 1 else answers[0])


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[VllmLimitsChannel]:
    made = VllmLimits().open(tmp_path / "live", "a", Configuration())
    made.file.attach(MOST)
    yield made
    made.close()


@pytest.fixture
def engine(channel: VllmLimitsChannel, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(live_server, "SETTLE_S", 0.0)
    monkeypatch.setattr(live_server, "_POLL_S", 0.001)
    monkeypatch.setattr(live_server, "_IDLE_S", 0.2)
    return Engine(channel.file)


@pytest.fixture
async def server(engine: Engine) -> AsyncIterator[RunningServer]:
    async with TestServer(engine.app()) as made:
        url = str(made.make_url("")).rstrip("/")
        yield RunningServer(VllmApi(), url, "served", Path("log"), 1, lambda: None)


async def test_limits_are_in_force_and_the_cache_is_emptied_last(
    engine: Engine, server: RunningServer, channel: VllmLimitsChannel
) -> None:
    engine.running = [5, 3, 0]
    engine.reset_answers = ['{"success":false}', '{"success":true}']
    await make_ready(server, channel, {"max_num_seqs": 4})
    assert channel.file.applied.limits == Limits(4, 2048)
    assert engine.calls == ["canary", *["canary", "metrics"] * 3, "reset", "reset"]


async def test_an_older_vllm_answers_nothing_to_the_reset(
    engine: Engine, server: RunningServer
) -> None:
    engine.reset_answers = [""]
    await make_ready(server, None, None)
    assert engine.calls == ["canary", "metrics", "reset"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"made": 0}, "its engine no longer generates"),
        ({"status": 500}, "its engine no longer generates"),
        ({"takes_limits": False}, "does not take new limits"),
        ({"takes": Limits(2, 64)}, "where .* was asked for"),
        ({"running": [7]}, "7 requests run and 0 wait"),
        ({"reset_answers": ['{"success":false}']}, "does not empty its prefix cache"),
    ],
)
async def test_a_server_that_is_not_as_it_was_is_not_reused(
    engine: Engine,
    server: RunningServer,
    channel: VllmLimitsChannel,
    wrong: dict[str, Any],
    says: str,
) -> None:
    for name, value in wrong.items():
        setattr(engine, name, value)
    with pytest.raises(NotReusableError, match=says):
        await make_ready(server, channel, {"max_num_seqs": 4, "max_num_batched_tokens": 1024})


async def test_a_server_that_does_not_answer_is_not_reused(engine: Engine) -> None:
    nobody = RunningServer(VllmApi(), "http://127.0.0.1:9", "served", Path("log"), 1, lambda: None)
    with pytest.raises(NotReusableError, match="does not answer"):
        await make_ready(nobody, None, None)
