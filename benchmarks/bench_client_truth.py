"""What is measured of each request and of a window, against what the emulator's server did.

`python bench_client_truth.py`. The server, in another process, notes the monotonic clock before and
after each write. The truth lies in between, for a process may be put aside within a write; so an
error is counted from the nearer of both, and, as `from before`, from the first one too. Throughput
is held against the writes within the window, energy against the engine's, noted every 10 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.connection import Connection

import numpy as np
import uvloop

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.devices.emulated.meters import EmulatorServerMeter
from tuner.emulator.engine.step_log import WriteLog
from tuner.emulator.http.served_engine import ServedEngine
from tuner.emulator.http.served_replicas import ServedReplicas
from tuner.emulator.http.server import Server
from tuner.emulator.virtual import engine_for
from tuner.measurement.load_run import run_load
from tuner.measurement.reduce import reduce_run
from tuner.measurement.steady_window import WindowPlan
from tuner.records import FloatArray, Load, Measurement, RawRun, Request, RequestRecord, Source
from tuner.records import RequestState as State
from tuner.servers.server import Endpoint
from tuner.servers.vllm.api import VllmApi

MODEL, GPU = "meta-llama/Llama-3.1-8B-Instruct", "H100-SXM"
METRICS = ("TTFT", "TPOT", "ITL", "E2EL")
_SHORTEST_PROMPT = 16  # the prompt's length is the request's number: answers are found by it
_WARM_UP_S = 4.0  # until the first requests have ended
_POWER_NOTE_S = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """When the server wrote what, by prompt length, and the energy it had used (times, J)."""

    wrote: dict[int, FloatArray]
    energy: FloatArray


async def _serve(pipe: Connection) -> None:
    from aiohttp import web

    engine = engine_for(
        load_model(MODEL), load_gpu(GPU), Configuration(), seed=0, noise=False, keep_log=False
    )
    live, wrote = ServedEngine(engine), WriteLog()
    app = Server(ServedReplicas([live]), "truth", wrote).app()
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await live.start()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pipe.send(runner.addresses[0][1])
    energy = []
    while not pipe.poll():
        energy.append((time.monotonic(), live.energy_j()))
        await asyncio.sleep(_POWER_NOTE_S)
    await runner.cleanup()
    await live.stop()
    pipe.send(Truth(wrote.by_prompt_tokens(), np.array(energy)))


def _server(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


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


def run(streams: int, seconds: float) -> tuple[RawRun, Truth]:
    """Measure the emulator's server; return what was seen and what the server did."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_server, args=(theirs,), daemon=True)
    process.start()
    try:
        requests = (
            Request(i, 0.0, np.full(i, 7, dtype=np.int32), 100 + i * 67 % 201)
            for i in count(_SHORTEST_PROMPT)
        )
        plan = WindowPlan(window_s=seconds, begins_after_s=_WARM_UP_S)
        load, url = Load(concurrency=streams), f"http://127.0.0.1:{pipe.recv()}"
        seen, warnings = uvloop.run(
            run_load(
                Endpoint(VllmApi(), url, "truth"),
                requests,
                load,
                EmulatorServerMeter(GPU),
                plan,
                latency_source=Source.EMULATED,
            )
        )
        pipe.send("stop")
        truth: Truth = pipe.recv()
    finally:
        process.terminate()
        process.join()
    assert not [r.error for r in seen.requests if r.state is State.FAILED]
    for said in filter(None, (seen.invalid, *warnings)):
        print(said)
    return seen, truth


def window_errors(seen: RawRun, truth: Truth) -> dict[str, float]:
    """Return throughput and energies of the window as measured / as they were - 1."""
    found = reduce_run(replace(seen, invalid=None), {})
    assert isinstance(found, Measurement), found
    start_s, end_s = seen.window_start_s, seen.window_end_s
    # the last two writes of an answer are the usage and the end marker
    writes_s = np.concatenate([rows[: len(rows) - 2, 0] for rows in truth.wrote.values()])
    tokens = np.count_nonzero((writes_s > start_s) & (writes_s <= end_s))
    before_j, after_j = np.interp([start_s, end_s], *truth.energy.T)
    was = {
        "output_throughput_tok_s": tokens / (end_s - start_s),
        "mean_power_w": (after_j - before_j) / (end_s - start_s),
        "energy_per_output_token_j": (after_j - before_j) / tokens,
    }
    return {name: found.metrics[name] / value - 1.0 for name, value in was.items()}


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
        if record.state is not State.DONE:
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
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=40, help="40 make 5,000 chunks/s")
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    cpu_s = time.process_time()
    seen, truth = run(asked.streams, asked.seconds)
    cpu_s = time.process_time() - cpu_s
    nearer, before, left_out = compare(seen.requests, truth.wrote)
    tokens = sum(r.token_times_s.size for r in seen.requests)
    print(
        f"{tokens / (asked.seconds + _WARM_UP_S):.0f} chunks/s, {nearer['TTFT'].size} requests "
        f"({left_out} left out), {1e6 * cpu_s / tokens:.1f} us of CPU per chunk"
    )
    print("|error|, ms |   p50    p99    max | from before:   p50    p99    max")
    for name in METRICS:
        cells = []
        for found in (nearer[name], before[name]):
            sizes = np.abs(found)
            cells.append("{:6.3f} {:6.3f} {:6.3f}".format(*np.percentile(sizes, [50, 99, 100])))
        print(f"{name:>11} | {cells[0]} |         {cells[1]}")
    together = sum(np.count_nonzero(np.diff(r.token_times_s) == 0.0) for r in seen.requests)
    print(f"{together / tokens:.2%} of the tokens were read with a later one, and have its time")
    for metric, error in window_errors(seen, truth).items():
        print(f"{metric:28}{100 * error:+.3f} %")


if __name__ == "__main__":
    main()
