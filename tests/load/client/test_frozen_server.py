"""A server that is stopped (SIGSTOP) while it answers: it accepts, and says nothing more."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from helpers.driving import drive_records
from helpers.endpoints import served

from tuner.load.client import health
from tuner.load.client.client import ClientLimits, Exchange
from tuner.load.client.connections import Connections
from tuner.records import Load, Request, RequestRecord, RequestState

LIMITS = ClientLimits(connect_s=5.0, first_token_s=1.0, silence_s=1.0)


class Frozen:
    """The emulator's server in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)


@pytest.fixture
async def emulator(unused_tcp_port: int, tmp_path: Path) -> AsyncIterator[Frozen]:
    model = "meta-llama/Llama-3.1-8B-Instruct"
    words = ["serve", model, "--port", str(unused_tcp_port), "--served-model-name", "served"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - a fixture, and nothing else runs yet
            [sys.executable, "-m", "tuner.emulator", *words, "--emulated-startup-s", "0"],
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{unused_tcp_port}"
    try:
        async with asyncio.timeout(60.0), aiohttp.ClientSession() as session:
            while not await answers(session, url):
                assert process.poll() is None, (tmp_path / "log").read_text()
                await asyncio.sleep(0.1)
        yield Frozen(process, url)
    finally:
        process.kill()
        process.wait()


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url + "/health") as reply:
            return reply.status == 200
    except aiohttp.ClientError:
        return False


def request(number: int = 0, tokens: int = 5000) -> Request:
    return Request(number, 0.0, np.full(8, 300, dtype=np.int32), tokens)


async def send(emulator: Frozen, *, after_tokens: bool) -> RequestRecord:
    limits = LIMITS if not after_tokens else ClientLimits(first_token_s=30.0, silence_s=1.0)
    async with Connections(limits.connect_s) as connections, asyncio.timeout(30.0):
        exchange = Exchange(request(), served(emulator.url), time.monotonic())
        task = asyncio.create_task(exchange.run(connections, limits))
        while after_tokens and exchange.last_token_s is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if after_tokens:
            emulator.freeze()
        await task
    return exchange.record(time.monotonic())


async def test_it_freezes_within_an_answer(emulator: Frozen) -> None:
    record = await send(emulator, after_tokens=True)
    assert record.state is RequestState.FAILED
    assert "timed out: silent for 1 s after" in str(record.error)
    assert record.token_times_s.size > 0
    assert record.ended_s - record.token_times_s[-1] >= 1.0


async def test_it_is_frozen_before_it_answers(emulator: Frozen) -> None:
    emulator.freeze()  # the kernel goes on accepting connections in its name
    record = await send(emulator, after_tokens=False)
    assert record.state is RequestState.FAILED
    assert "timed out: no token within 1 s" in str(record.error)
    assert record.token_times_s.size == 0


async def test_a_whole_load_ends(emulator: Frozen) -> None:
    class Endless:
        window_start_s = window_end_s = None

        def started(self, now_s: float) -> None:
            asyncio.get_running_loop().call_later(1.0, emulator.freeze)

        def sent(self, now_s: float) -> None: ...

        def finished(self, now_s: float) -> None: ...

    requests = (request(number) for number in range(10**6))
    limits = ClientLimits(first_token_s=30.0, silence_s=2.0)
    async with asyncio.timeout(60.0):
        records = await drive_records(
            served(emulator.url), requests, Load(concurrency=4), Endless(), limits=limits
        )
    assert {r.state for r in records} == {RequestState.FAILED}


async def test_a_load_that_ends_before_the_silence_is_long_enough_has_failed_all_the_same(
    emulator: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its window would be a measurement with few tokens."""

    class Ending:
        window_start_s = None

        def __init__(self) -> None:
            self.window_end_s = time.monotonic() + 4.0

        def started(self, now_s: float) -> None:
            asyncio.get_running_loop().call_later(1.0, emulator.freeze)

        def sent(self, now_s: float) -> None: ...

        def finished(self, now_s: float) -> None: ...

    monkeypatch.setattr(health, "_LEAST_SILENCE_S", 1.0)
    monkeypatch.setattr(health, "_LONGER", 1.0)
    requests = (request(number) for number in range(10**6))
    async with asyncio.timeout(60.0):
        records = await drive_records(served(emulator.url), requests, Load(concurrency=4), Ending())
    assert {r.state for r in records} == {RequestState.FAILED}
    assert all("not one token for the last 3 s" in str(r.error) for r in records)
