"""How exactly the client times tokens, and what a chunk costs it: `python bench_client.py`.

A raw asyncio server in another process streams to N clients and notes when it wrote each chunk;
both processes read the same monotonic clock. `burst` writes to all streams at once, as an engine's
step does; `spread` writes to one stream after another at even intervals.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import numpy as np
import uvloop

from tuner.load.client.drive import drive
from tuner.records import (
    FloatArray,
    Load,
    Request,
    RequestRecord,
    RequestState,
    SteadyWatch,
)
from tuner.servers.server import Endpoint
from tuner.servers.vllm.api import VllmApi

Records: TypeAlias = tuple[RequestRecord, ...]

_STEP_GAP_S = 0.003
_WARM_UP_S = 1.0  # all the connections are opened at once


class _Watch:
    """Ends the load after so many seconds, and looks at nothing."""

    window_start_s: float | None = None

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self.window_end_s: float | None = None

    def started(self, now_s: float) -> None:
        self.window_start_s = now_s
        self.window_end_s = now_s + self._lasts_s

    def sent(self, now_s: float) -> None: ...

    def finished(self, now_s: float) -> None: ...


class _Stream(asyncio.Protocol):
    """One connection; answers each request with chunks when the ticker says so."""

    def __init__(
        self,
        streams: dict[_Stream, None],
        wrote: dict[int, list[float]],
        asked_s: list[float],
    ) -> None:
        self._streams = streams
        self._wrote = wrote
        self._asked_s = asked_s
        self._buffer = b""
        self._left = 0
        self._times_s: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._streams.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, body = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        if not head.startswith(b"POST /v1/completions "):  # others look around first
            self._buffer = b""
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) < length:
            return
        self._asked_s.append(time.monotonic())
        self._buffer = b""
        asked = json.loads(body)
        self._left = asked["max_tokens"]
        self._times_s = self._wrote[asked["prompt"][0]] = []
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        self._streams[self] = None

    def chunk(self) -> None:
        """Write the next token, and the end after the last."""
        self._left -= 1
        reason = "null" if self._left else '"length"'
        event = (
            'data: {"id":"cmpl-00000000000000000000000000000000","object":"text_completion",'
            '"created":1700000000,"model":"bench","choices":[{"index":0,"text":" a",'
            f'"logprobs":null,"finish_reason":{reason},"stop_reason":null,"prompt_token_ids":null,'
            '"token_ids":[4711]}]}\n\n'
        ).encode()
        if not self._left:
            event += b"data: [DONE]\n\n"
        self._times_s.append(time.monotonic())
        self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        if not self._left:
            self._transport.write(b"0\r\n\r\n")
            self._streams.pop(self, None)


async def _serve(pipe: Connection, streams: int, chunks_per_s: float, burst: bool) -> None:
    live: dict[_Stream, None] = {}
    wrote: dict[int, list[float]] = {}
    asked_s: list[float] = []  # when each request was read
    server = await asyncio.get_running_loop().create_server(
        lambda: _Stream(live, wrote, asked_s), "127.0.0.1", 0, backlog=4096
    )
    pipe.send(server.sockets[0].getsockname()[1])
    step = streams if burst else 1
    due_s = time.monotonic()
    turn = 0
    while True:
        if pipe.poll():
            if pipe.recv() == "stop":
                break
            pipe.send(asked_s.copy())
            asked_s.clear()
        due_s += step / chunks_per_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        ready = list(live)
        for _ in range(min(step, len(ready))):
            turn += 1
            ready[turn % len(ready)].chunk()
    server.close()
    pipe.send(wrote)


def driven(
    endpoint: Endpoint, requests: Iterator[Request], load: Load, watch: SteadyWatch
) -> Records:
    """Drive a load on an event loop of its own; return the records.

    They are no result of the main task: `uvloop.run` would format it, array by array, twice, for
    a message that nobody sees (the enum of `signal.getsignal` refuses a handler by its `repr`).
    """
    found: list[Records] = []

    async def main() -> None:
        found.append((await drive(endpoint, requests, load, watch)).records)

    uvloop.run(main())  # as the tuner does
    return found[0]


def _server(pipe: Connection, streams: int, chunks_per_s: float, burst: bool) -> None:
    asyncio.run(_serve(pipe, streams, chunks_per_s, burst))


def measure(streams: int, chunks_per_s: float, seconds: float, *, burst: bool) -> dict[str, float]:
    """Return lateness percentiles in ms, the rate reached and the client's CPU per chunk."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(
        target=_server, args=(theirs, streams, chunks_per_s, burst), daemon=True
    )
    process.start()
    try:
        url = f"http://127.0.0.1:{pipe.recv()}"
        # Lengths differ, so that the streams do not all end and begin in one step.
        requests = (
            Request(i, 0.0, np.full(8, i, dtype=np.int32), 100 + i * 67 % 201) for i in count()
        )
        before, idle_mb = resource.getrusage(resource.RUSAGE_SELF), _resident_mb()
        load = Load(concurrency=streams)
        settled_s = time.monotonic() + _WARM_UP_S
        lasts_s = _WARM_UP_S + seconds
        records = driven(Endpoint(VllmApi(), url, "bench"), requests, load, _Watch(lasts_s))
        after = resource.getrusage(resource.RUSAGE_SELF)
        peak_mb = after.ru_maxrss / 1024
        pipe.send("stop")
        wrote: dict[int, list[float]] = pipe.recv()
    finally:
        process.terminate()
        process.join()
    assert not [r.error for r in records if r.state is RequestState.FAILED]
    # One that was cut before the server had read it has no tokens.
    records = tuple(r for r in records if r.token_times_s.size)
    saw_s = np.concatenate([r.token_times_s for r in records])
    sent_s = np.concatenate([wrote[r.request_id][: r.token_times_s.size] for r in records])
    saw_s, sent_s = saw_s[sent_s > settled_s], sent_s[sent_s > settled_s]
    late_ms = 1e3 * (saw_s - sent_s)
    tokens = sum(r.token_times_s.size for r in records)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    p50, p99, p999 = np.percentile(late_ms, [50, 99, 99.9])
    return {
        "chunks_per_s": late_ms.size / seconds,
        "late_p50_ms": p50,
        "late_p99_ms": p99,
        "late_p999_ms": p999,
        "late_max_ms": late_ms.max(),
        "last_of_step_ms": _last_of_step_ms(sent_s, late_ms),
        "cpu_us_per_chunk": 1e6 * cpu_s / tokens,
        "idle_mb": idle_mb,
        "peak_mb": peak_mb,  # of the process so far
    }


def _resident_mb() -> float:
    """Return the memory of this process that is in RAM, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _last_of_step_ms(sent_s: FloatArray, late_ms: FloatArray) -> float:
    """Return how late the last token of a step is, the median over steps.

    Other processes disturb some steps and not the median: this is the client's own lateness.
    """
    order = np.argsort(sent_s)
    step = np.cumsum(np.diff(sent_s[order], prepend=sent_s[order[0]]) > _STEP_GAP_S)
    return float(np.median([late_ms[order][step == i].max() for i in range(step[-1] + 1)]))


def main() -> None:
    """Print a line per pattern."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--chunks-per-s", type=float, default=5000.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    asked = parser.parse_args()
    for name, burst in (("burst", True), ("spread", False)):
        found = measure(asked.streams, asked.chunks_per_s, asked.seconds, burst=burst)
        print(name, " ".join(f"{key}={value:.3f}" for key, value in found.items()))


if __name__ == "__main__":
    main()
