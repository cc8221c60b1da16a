"""What the client says of each request against what the emulator's server did: the errors in ms.

`python bench_client_truth.py`. The server, in another process, notes the monotonic clock before and
after each write. The truth lies in between, for a process may be put aside within a write; so an
error is counted from the nearer of both, and, as `from before`, from the first one too.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from itertools import count
from multiprocessing.connection import Connection

import numpy as np

from tuner.configuration import Configuration
from tuner.emulator.hardware import load_gpu
from tuner.emulator.live import LiveEngine
from tuner.emulator.live_replicas import LiveReplicas
from tuner.emulator.model import load_model
from tuner.emulator.server import Server
from tuner.emulator.step_log import WriteLog
from tuner.emulator.virtual import engine_for
from tuner.load.drive import drive
from tuner.records import FloatArray, Load, Request, RequestRecord, RequestState

MODEL, GPU = "meta-llama/Llama-3.1-8B-Instruct", "H100-SXM"
METRICS = ("TTFT", "TPOT", "ITL", "E2EL")
_SHORTEST_PROMPT = 16  # the prompt's length is the request's number: answers are found by it
_STEP_S = 0.0128  # of the emulated engine with this model, about; the speed sets the rate


class _Seconds:
    """A watch that ends the load after so many seconds."""

    window_start_s: float | None = None
    window_end_s: float | None = None

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s

    def started(self, now_s: float) -> None:
        self.window_end_s = now_s + self._lasts_s

    def sent(self, now_s: float) -> None: ...

    def finished(self, now_s: float) -> None: ...


async def _serve(pipe: Connection, speed: float) -> None:
    from aiohttp import web

    engine = engine_for(
        load_model(MODEL), load_gpu(GPU), Configuration(), seed=0, noise=False, keep_log=False
    )
    live, wrote = LiveEngine(engine, speed=speed), WriteLog()
    app = Server(LiveReplicas([live]), "truth", wrote).app()
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await live.start()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pipe.send(runner.addresses[0][1])
    while not pipe.poll():  # noqa: ASYNC110 - a pipe has no event
        await asyncio.sleep(0.05)
    await runner.cleanup()
    await live.stop()
    pipe.send(wrote.by_prompt_tokens())


def _server(pipe: Connection, speed: float) -> None:
    asyncio.run(_serve(pipe, speed))


def errors_ms(seen_s: FloatArray, wrote_s: FloatArray) -> dict[str, FloatArray]:
    """Return each metric of one request as seen, minus what was written when."""
    late_s = 1e3 * (seen_s - wrote_s)
    gaps = np.diff(late_s)
    # TTFT and E2EL count from the same scheduled time, which is the client's own.
    return {
        "TTFT": late_s[:1],
        "TPOT": np.array([gaps.sum() / gaps.size]),
        "ITL": gaps,
        "E2EL": late_s[-1:],
    }


def run(
    streams: int, chunks_per_s: float, seconds: float
) -> tuple[tuple[RequestRecord, ...], dict[int, FloatArray]]:
    """Drive the emulator's server; return what the client saw and what the server wrote."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    speed = chunks_per_s * _STEP_S / streams
    process = context.Process(target=_server, args=(theirs, speed), daemon=True)
    process.start()
    try:
        requests = (
            Request(i, 0.0, np.full(i, 7, dtype=np.int32), 100 + i * 67 % 201)
            for i in count(_SHORTEST_PROMPT)
        )
        load, url = Load(concurrency=streams), f"http://127.0.0.1:{pipe.recv()}"
        records = asyncio.run(drive(url, "truth", requests, load, _Seconds(seconds)))
        pipe.send("stop")
        wrote: dict[int, FloatArray] = pipe.recv()
    finally:
        process.terminate()
        process.join()
    assert not [r.error for r in records if r.state is RequestState.FAILED]
    return records, wrote


def compare(
    records: tuple[RequestRecord, ...], wrote: dict[int, FloatArray]
) -> tuple[dict[str, FloatArray], dict[str, FloatArray], int]:
    """Return the errors from the nearer end of each write, from before it, and requests left out.

    Left out is an answer with two tokens in one event: its events are not its tokens.
    """
    nearer: dict[str, list[FloatArray]] = {name: [] for name in METRICS}
    before: dict[str, list[FloatArray]] = {name: [] for name in METRICS}
    left_out = 0
    for record in records:
        if record.state is not RequestState.DONE:
            continue
        seen_s, rows = record.token_times_s, wrote[record.prompt_tokens]
        if len(rows) != seen_s.size + 2:  # the usage and the end marker
            left_out += 1
            continue
        rows = rows[: seen_s.size]
        for found, truth_s in (
            (nearer, np.clip(seen_s, rows[:, 0], rows[:, 1])),
            (before, rows[:, 0]),
        ):
            for name, error in errors_ms(seen_s, truth_s).items():
                found[name].append(error)
    joined = [{k: np.concatenate(v) for k, v in found.items()} for found in (nearer, before)]
    return joined[0], joined[1], left_out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--chunks-per-s", type=float, default=5000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    cpu_s = time.process_time()
    records, wrote = run(asked.streams, asked.chunks_per_s, asked.seconds)
    cpu_s = time.process_time() - cpu_s
    nearer, before, left_out = compare(records, wrote)
    tokens = sum(r.token_times_s.size for r in records)
    print(
        f"{tokens / asked.seconds:.0f} chunks/s, {nearer['TTFT'].size} requests "
        f"({left_out} left out), client {1e6 * cpu_s / tokens:.1f} us of CPU per chunk"
    )
    print("|error|, ms |   p50    p99    max | from before:   p50    p99    max")
    for name in METRICS:
        cells = []
        for found in (nearer[name], before[name]):
            sizes = np.abs(found)
            cells.append("{:6.3f} {:6.3f} {:6.3f}".format(*np.percentile(sizes, [50, 99, 100])))
        print(f"{name:>11} | {cells[0]} |         {cells[1]}")


if __name__ == "__main__":
    main()
