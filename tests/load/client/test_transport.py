"""A transport on either event loop: what is long is sent in parts, and what comes has its time."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import trustme
import uvloop
from helpers.endpoints import served

from tuner.load.client.arrival_stamps import ArrivalSocket, WallClock
from tuner.load.client.connections import Connections
from tuner.load.client.drive import drive
from tuner.load.client.transport import TcpTransport
from tuner.records import Load, Request

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
LATE_S = 0.3


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as made:
        yield made


@contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection in a thread of its own; give the port."""

    def accept() -> None:
        taken, _ = listener.accept()
        with taken:
            serve(taken)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(10.0)


async def answer(url: str, request: bytes) -> tuple[bytes, list[float]]:
    """Send a request; return the body of the answer and when its pieces arrived."""
    pieces: list[tuple[bytes, float]] = []
    ended = asyncio.Event()
    async with Connections(5.0) as connections:
        target = connections.target(url)
        connection = await connections.take(target.origin)
        connection.post(request, lambda *piece: pieces.append(piece), ended.set, keep=False)
        time.sleep(LATE_S)  # noqa: ASYNC251 - a loop that has lost its core
        async with asyncio.timeout(20.0):
            await ended.wait()
        connections.give_back(connection)
    assert connection.error is None
    return b"".join(data for data, _ in pieces), [at_s for _, at_s in pieces]


def test_what_the_kernel_does_not_take_at_once_is_sent_later(runner: asyncio.Runner) -> None:
    whole = np.random.default_rng(0).bytes(5_000_000)
    read = bytearray()

    def serve(taken: socket.socket) -> None:
        time.sleep(LATE_S)
        while len(read) < len(whole):
            read.extend(taken.recv(100_000))
        taken.sendall(HEAD + b"done")

    with peer(serve) as port:
        assert runner.run(answer(f"http://127.0.0.1:{port}/", whole))[0] == b"done"
    assert read == whole


@pytest.mark.skipif(sys.platform != "linux", reason="Linux stamps what arrives")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_read_late_has_the_time_it_came(
    runner: asyncio.Runner, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    wrote_s = []

    def serve(taken: socket.socket) -> None:
        talk = tls.wrap_socket(taken, server_side=True) if scheme == "https" else taken
        with talk:
            talk.recv(1000)
            wrote_s.append(time.monotonic())
            talk.sendall(HEAD + b"done")
            time.sleep(2 * LATE_S)

    with peer(serve) as port:
        body, times_s = runner.run(answer(f"{scheme}://127.0.0.1:{port}/", b"please"))
    assert body == b"done"
    assert -1e-3 <= times_s[-1] - wrote_s[0] < LATE_S / 2


def test_a_fault_of_the_receiver_ends_the_connection(runner: asyncio.Runner) -> None:
    class Faulty:
        def received(self, data: bytes, arrived_s: float) -> None:
            raise ZeroDivisionError

        def lost(self, error: Exception | None) -> None:
            ended.set()

    async def talk(port: int) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        ours = ArrivalSocket(WallClock(), socket.AF_INET, socket.SOCK_STREAM, 0)
        ours.setblocking(False)
        await loop.sock_connect(ours, ("127.0.0.1", port))
        transport = TcpTransport(loop, ours, Faulty())
        transport.write(b"please")
        async with asyncio.timeout(5.0):
            await ended.wait()
        assert transport.is_closing

    ended, told = asyncio.Event(), []
    with peer(lambda taken: taken.sendall(taken.recv(100))) as port:
        runner.run(talk(port))
    assert [type(error) for error in told] == [ZeroDivisionError]


def test_no_request_is_sent_before_its_time(
    runner: asyncio.Runner, make_request: Callable[..., Request]
) -> None:
    """uvloop's timers may be early."""

    class Watch:
        window_start_s: float | None = None
        window_end_s: float | None = None

        def started(self, now_s: float) -> None:
            self.window_start_s, self.window_end_s = now_s, now_s + 0.3

        def sent(self, now_s: float) -> None: ...
        def finished(self, now_s: float) -> None: ...

    requests = (make_request(i, arrival_s=i * 1.37) for i in range(1000))
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        report = runner.run(drive(served(url), requests, Load(request_rate=400.0), Watch()))
    assert len(report.records) > 20
    assert all(r.sent_s >= r.scheduled_s for r in report.records)
