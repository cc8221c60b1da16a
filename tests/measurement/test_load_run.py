"""Loads over HTTP against the emulator's server process, and against lists that run out."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import numpy as np
import pytest
from helpers.endpoints import served
from helpers.scripted import Recorder
from helpers.studies import wait_for

from tuner.devices.emulated.meters import EmulatorServerMeter
from tuner.load.workload import load_workload
from tuner.measurement.listener import NOBODY, LoadListener
from tuner.measurement.load_run import run_load
from tuner.measurement.precision import Precision
from tuner.measurement.reduce import reduce_run
from tuner.measurement.steady_window import WindowPlan
from tuner.records import (
    Failure,
    FailureKind,
    FloatArray,
    Load,
    Measurement,
    RawRun,
    Request,
    RequestState,
    Source,
)
from tuner.servers.vllm.counters import scrape
from tuner.slo import Slo

MODEL = "Qwen/Qwen3-8B"


@pytest.fixture(scope="module")
def emulator(unused_tcp_port_factory: Callable[[], int]) -> Iterator[str]:
    """The address of an emulator that runs as a process of its own."""
    port = unused_tcp_port_factory()
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner.emulator", "serve", MODEL, "--port", str(port)],
        env={**os.environ, "TUNER_EMULATED_GPU": "H100-SXM"},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(url), 30)
        yield url
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health") as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError:
        return False


async def load(
    url: str,
    offered: Load,
    plan: WindowPlan,
    requests: Iterator[Request] | None = None,
    listener: LoadListener = NOBODY,
) -> tuple[RawRun, tuple[str, ...]]:
    stream = load_workload("smoke").requests() if requests is None else requests
    meter = EmulatorServerMeter("H100")
    source = Source.EMULATED
    return await run_load(
        served(url, MODEL), stream, offered, meter, plan, latency_source=source, listener=listener
    )


def believed(run: RawRun) -> RawRun:
    """Leave aside that tests beside this one may have kept the client from its core."""
    return replace(run, invalid=None)


@asynccontextmanager
async def counters(url: str) -> AsyncIterator[list[tuple[float, float, float]]]:
    """Read the emulator's own counters of energy and tokens, apart from what is tested."""
    rows: list[tuple[float, float, float]] = []

    async def read() -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                before_s = time.monotonic()
                report = await scrape(session, url)
                middle_s = (before_s + time.monotonic()) / 2
                assert report.emulated_energy_j is not None
                assert report.generation_tokens is not None
                rows.append((middle_s, report.emulated_energy_j, report.generation_tokens))
                await asyncio.sleep(0.03)

    task = asyncio.create_task(read())
    yield rows
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("offered", [Load(concurrency=8), Load(request_rate=10.0)])
async def test_energy_and_throughput_are_those_of_the_emulator(
    emulator: str, offered: Load
) -> None:
    listener = Recorder()
    plan = WindowPlan(window_s=8.0, warmup_limit_s=4.0)
    async with counters(emulator) as rows:
        run, _ = await load(emulator, offered, plan, listener=listener)
    result = reduce_run(believed(run), {})
    assert isinstance(result, Measurement), result
    assert run.power.sm_clock_mhz is not None
    assert run.power.sm_clock_mhz.shape == run.power.times_s.shape
    assert np.median(run.power.sm_clock_mhz) == 1980.0  # no limit holds it lower
    times_s, energy_j, tokens = np.array(rows).T
    edges_s = [run.window_start_s, run.window_end_s]

    def change(column: FloatArray) -> float:
        at_start, at_end = np.interp(edges_s, times_s, column)
        return float(at_end - at_start)

    window_s = run.window_end_s - run.window_start_s
    assert result.metrics["mean_power_w"] * window_s == pytest.approx(change(energy_j), rel=0.01)
    per_token_j = change(energy_j) / change(tokens)
    assert result.metrics["energy_per_output_token_j"] == pytest.approx(per_token_j, rel=0.01)
    last = listener.snapshots[-1]
    assert (run.latency_source, last.latency_source) == (Source.EMULATED, Source.EMULATED)
    assert last.power_source is Source.EMULATED
    assert last.power_w in run.power.power_w
    assert last.sm_clock_mhz in run.power.sm_clock_mhz
    assert last.tpot_ms == pytest.approx(result.metrics["p50_tpot_ms"], rel=0.3)
    assert last.ttft_ms == pytest.approx(result.metrics["p50_ttft_ms"], rel=0.5)
    throughput = change(tokens) / window_s
    assert result.metrics["output_throughput_tok_s"] == pytest.approx(throughput, rel=0.005)


async def test_the_end_is_sampled_while_the_load_still_runs(emulator: str) -> None:
    """Energy at the end lies between two readings: one of an idle GPU would make it too little."""
    run, _ = await load(emulator, Load(concurrency=8), WindowPlan(window_s=2.0, begins_after_s=1.0))
    after_w = run.power.power_w[run.power.times_s >= run.window_end_s]
    idle_w = run.power.power_w[0]
    assert after_w[0] > 3.0 * idle_w
    cut = [r for r in run.requests if r.state is RequestState.CUT]
    assert len(cut) == 8
    assert min(r.ended_s for r in cut) >= run.power.times_s[run.power.power_w == after_w[0]][0]
    assert run.window_end_s == pytest.approx(run.window_start_s + 2.0)


async def test_an_adaptive_window_ends_over_http_too(emulator: str) -> None:
    precision = Precision(min_window_s=1.0, max_window_s=30.0, energy_share=0.1)
    run, _ = await load(emulator, Load(concurrency=8), WindowPlan(precision=precision))
    assert 1.0 <= run.window_end_s - run.window_start_s < 25.0


async def test_a_hopeless_slo_ends_a_load_over_http(emulator: str) -> None:
    plan = WindowPlan(window_s=60.0, warmup_limit_s=3.0, slos=(Slo("p99_tpot_ms", 0.5),))
    run, warnings = await load(emulator, Load(concurrency=8), plan)
    assert run.window_end_s - run.window_start_s < 15.0
    assert run.ended_early is not None and run.ended_early.missed == "p99_tpot_ms<=0.5"
    result = reduce_run(believed(run), {})
    assert isinstance(result, Measurement)
    assert result.ended_early is not None and "p99_tpot_ms<=0.5" in result.ended_early
    assert result.metrics["p99_tpot_ms"] > 0.5
    assert not any("settled" in warning for warning in warnings)


async def test_requests_that_run_out_while_warming_up_are_a_failure(emulator: str) -> None:
    few = itertools.islice(load_workload("smoke").requests(), 6)
    plan = WindowPlan(window_s=20.0, warmup_limit_s=10.0)
    run, _ = await load(emulator, Load(concurrency=4), plan, few)
    result = reduce_run(run, {})
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.INFRASTRUCTURE
    assert "the requests ran out after 6, before the load had settled" in result.reason
    needed = int(result.reason.split(" need ")[1].split(";")[0])
    assert needed > 100
