"""Limits changed in a real vLLM while it serves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from helpers.tiny_vllm import needs_vllm, tiny_plan

from tuner.configuration import Value
from tuner.servers.launch import RunningServer, launched
from tuner.servers.ready import make_ready
from tuner.servers.vllm.adjustable import VllmLimits, VllmLimitsChannel
from tuner.servers.vllm.counters import scrape
from tuner.servers.vllm.live_limits import Limits, LimitsFile, State

pytestmark = needs_vllm(1500)

STREAMS = 48
MOST = Limits(32, 2048)
SLOW_S = 60.0  # for one step of a busy machine's server, or one answer
CHANGES = 200


@asynccontextmanager
async def live_vllm(
    folder: Path, run_tag: str, *, asynchronous: bool
) -> AsyncIterator[tuple[RunningServer, VllmLimitsChannel]]:
    flags: dict[str, Value] = {
        "skip_tokenizer_init": True,
        "max_num_seqs": MOST.max_num_seqs or 0,
        "max_num_batched_tokens": MOST.max_num_batched_tokens or 0,
        "async_scheduling": asynchronous,
    }
    plan = tiny_plan(folder, run_tag, flags)
    channel = VllmLimits().open(folder / "live", "server", plan.configuration)
    async with launched(replace(plan, configuration=channel.configuration)) as server:
        yield server, channel
    channel.close()


class Streams:
    """Clients that send one request after the other, and count those that end as they should."""

    def __init__(self, session: aiohttp.ClientSession, server: RunningServer) -> None:
        self.complete = 0
        self.wrong: list[object] = []
        self._session = session
        self._server = server
        self._over = False

    async def client(self, number: int) -> None:
        dice = random.Random(number)
        while not self._over:
            tokens = dice.randint(8, 48)
            asked = {
                "model": self._server.served_name,
                "prompt": [dice.randint(3, 500) for _ in range(dice.randint(8, 300))],
                "max_tokens": tokens,
                "ignore_eos": True,
                "detokenize": False,
            }
            url = f"{self._server.base_url}/v1/completions"
            async with self._session.post(url, json=asked) as reply:
                said = await reply.json()
            if reply.status == 200 and said["usage"]["completion_tokens"] == tokens:
                self.complete += 1
            else:
                self.wrong.append(said)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        clients = [asyncio.create_task(self.client(n)) for n in range(STREAMS)]
        try:
            yield
        finally:
            self._over = True
            await asyncio.gather(*clients)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SLOW_S):
        while not condition():  # noqa: ASYNC110 - it comes true in another process
            await asyncio.sleep(0.005)


async def until_applied(file: LimitsFile, limits: Limits) -> None:
    generation = file.want(limits)
    await until(lambda: file.applied.generation == generation)
    assert file.applied.limits == limits


def obeys(file: LimitsFile, seqs: int) -> bool:
    return file.applied.running <= seqs


async def gauge(session: aiohttp.ClientSession, server: RunningServer) -> float:
    """Return how many requests run as `/metrics` has it, which is that of a step before."""
    sample = await scrape(session, server.base_url, deadline_s=SLOW_S)
    assert sample.running is not None
    return sample.running


async def most_running(
    session: aiohttp.ClientSession, server: RunningServer, file: LimitsFile, limit: int
) -> tuple[float, float]:
    """Return the most requests that ran, as the engine said and as `/metrics` did.

    Looks for two seconds, and longer while fewer run than may: a busy client sends late.
    """
    by_engine = by_metrics = 0.0
    clock_s = asyncio.get_running_loop().time
    begin_s = clock_s()
    while clock_s() < begin_s + 2.0 or (
        min(by_engine, by_metrics) < limit and clock_s() < begin_s + SLOW_S
    ):
        by_engine = max(by_engine, file.applied.running)
        by_metrics = max(by_metrics, await gauge(session, server))
        await asyncio.sleep(0.02)
    return by_engine, by_metrics


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
async def test_running_requests_obey_and_200_changes_harm_none(
    tmp_path: Path, run_tag: str, asynchronous: bool
) -> None:
    async with (
        live_vllm(tmp_path, run_tag, asynchronous=asynchronous) as (server, channel),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        file = channel.file
        assert file.state is State.READY
        assert file.most == MOST
        streams = Streams(session, server)
        async with streams.running():
            for seqs in (32, 4, 16):
                await until_applied(file, Limits(seqs, 2048))
                # what ran under a higher limit ends by itself
                await until(partial(obeys, file, seqs))
                async with asyncio.timeout(SLOW_S):
                    while await gauge(session, server) > seqs:  # noqa: ASYNC110 - as in `until`
                        await asyncio.sleep(0.02)
                assert await most_running(session, server, file, seqs) == (seqs, seqs)
            dice = random.Random(7)
            for _ in range(CHANGES):
                await until_applied(file, Limits(dice.randint(1, 32), dice.randint(64, 2048)))
                await asyncio.sleep(dice.uniform(0.0, 0.05))
            await until_applied(file, MOST)
        assert streams.wrong == []
        assert streams.complete >= STREAMS
        assert server.exit_code() is None
        assert " ERROR " not in (tmp_path / "vllm.log").read_text()

        await make_ready(server, channel, {"max_num_seqs": 2})  # idle, and still changeable
        assert file.applied.limits == Limits(2, 2048)
        sample = await scrape(session, server.base_url)
        assert (sample.running, sample.waiting) == (0.0, 0.0)
