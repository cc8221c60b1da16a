"""The kernel's stamps, on the clock of everything else."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from helpers.endpoints import served

from tuner.load.client.arrival_stamps import ArrivalSocket, WallClock
from tuner.load.client.client import ClientLimits, Exchange
from tuner.load.client.connections import Connections
from tuner.records import Request, RequestState

LIMITS = ClientLimits()
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux stamps what arrives")


@pytest.fixture
def pair() -> Iterator[tuple[ArrivalSocket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ArrivalSocket(WallClock(), socket.AF_INET, socket.SOCK_STREAM, 0) as ours,
    ):
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
        with theirs:
            yield ours, theirs


def test_the_wall_clock_is_turned_into_the_monotonic_one() -> None:
    clock = WallClock()
    before_s, wall_ns, after_s = time.monotonic(), time.time_ns(), time.monotonic()
    assert before_s - 1e-3 <= clock.monotonic_s(wall_ns) <= after_s + 1e-3
    assert clock.monotonic_s(wall_ns - 10**9) == pytest.approx(before_s - 1.0, abs=2e-3)
    assert clock.monotonic_s(time.time_ns() + 10**12) <= time.monotonic()


@needs_linux
def test_what_is_read_late_has_the_time_it_came(
    pair: tuple[ArrivalSocket, socket.socket],
) -> None:
    ours, theirs = pair
    for _ in range(50):  # the kernel begins to stamp a little after it was asked to
        theirs.send(b"early")
        time.sleep(0.02)
        if time.monotonic() - ours.receive(100)[1] > 0.01:
            break
    before_s = time.monotonic()
    theirs.send(b"hello")
    time.sleep(0.3)
    data, arrived_s = ours.receive(100)
    assert data == b"hello"
    assert before_s - 1e-3 <= arrived_s < before_s + 0.2


@needs_linux
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
            super().__init__(request, served(server.url), time.monotonic())
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
    async with Connections(LIMITS.connect_s) as connections:
        tasks = [asyncio.create_task(e.run(connections, LIMITS)) for e in exchanges]
        await eventually(lambda: all(e.last_token_s for e in exchanges))
        together.set()
        await asyncio.gather(*tasks)
    records = [e.record(0.0) for e in exchanges]
    assert {r.state for r in records} == {RequestState.DONE}
    wrote_s = {tuple(t.asked["prompt"]): t.wrote_s for t in server.talks}
    assert len(wrote_s) == 1  # all prompts are alike: writes are compared in order
    last_s = np.sort([r.token_times_s[1] for r in records])
    sent_s = np.sort([t.wrote_s[1] for t in server.talks])
    # Server and client share this test's loop: a read holds up the writes, and not their stamps.
    assert np.median(last_s - sent_s) < 0.01


@pytest.mark.parametrize("jump_s", [-3600.0, -30.0 * 86400, 3600.0, -1.0, 40 * 365 * 86400.0])
def test_a_clock_that_is_set_in_a_window_moves_no_token(
    monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """A stamp of hours ago would be told as a silent engine, the configuration's fault."""
    clock, real = WallClock(), time.time_ns
    clock.monotonic_s(real())  # compares the clocks, for the next tenth of a second
    jump_ns = round(jump_s * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: real() + jump_ns)
    for stamp_ns in (time.time_ns(), real()):  # of after and of before it was set
        now_s = time.monotonic()
        assert now_s - 11.0 < clock.monotonic_s(stamp_ns) <= time.monotonic()
    clock._valid_until_s = 0.0
    now_s = time.monotonic()
    assert clock.monotonic_s(time.time_ns()) == pytest.approx(now_s, abs=0.2)
