"""An evaluator of each kind, opened on what it measures."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import aiohttp

from helpers.benches import virtual_order
from helpers.live_servers import evaluator as launched_evaluator
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.evaluation.attached import AttachedEvaluator
from tuner.evaluation.emulated.emulation import TextEmulation
from tuner.evaluation.emulated.virtual import VirtualEvaluator
from tuner.evaluation.evaluator import Evaluator, MeasurementPlan
from tuner.evaluation.launched.launch_sharing import LiveKnobs
from tuner.evaluation.remote.local_process import LocalProcess
from tuner.evaluation.remote.remote_evaluator import RemoteEvaluator
from tuner.evaluation.traffic import Traffic
from tuner.load.workload import load_workload
from tuner.measurement.listener import NOBODY
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Load
from tuner.slo import Slo

MODEL = "Qwen/Qwen3-8B"
PLAN = MeasurementPlan(
    model=MODEL,
    traffic=Traffic(load_workload("smoke")),
    load=Load(concurrency=8),
    slos=(Slo("p99_tpot_ms", 100.0),),
    window=WindowPlan(window_s=1.5, warmup_limit_s=5.0),
    fixed=Configuration(),
)

Opened: TypeAlias = AbstractAsyncContextManager[Evaluator]


@asynccontextmanager
async def virtual(_: Path) -> AsyncIterator[Evaluator]:
    plan = replace(PLAN, window=WindowPlan(window_s=20.0))
    yield VirtualEvaluator(
        TextEmulation(load_model(MODEL), load_gpu("H100-SXM")),
        load_gpu("H100-SXM"),
        plan,
        0,
        LiveKnobs({}),
    )


@asynccontextmanager
async def launched(folder: Path) -> AsyncIterator[Evaluator]:
    async with launched_evaluator(folder, PLAN.workload) as made:
        yield made


@asynccontextmanager
async def attached(folder: Path) -> AsyncIterator[Evaluator]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("serve", MODEL, "--port", str(port), "--emulated-startup-s", "0")
    log = (folder / "server.log").open("wb")
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tuner.emulator", *words, stdout=log, stderr=log
    )
    try:
        await wait_until_ready(port)
        yield AttachedEvaluator(f"http://127.0.0.1:{port}", PLAN, no_meter)
    finally:
        server.terminate()
        await server.wait()
        log.close()


def no_meter(_names: object) -> None:
    raise AssertionError("an emulated server is its own meter")


async def wait_until_ready(port: int) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/health") as reply:
                    if reply.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def remote(folder: Path) -> AsyncIterator[Evaluator]:
    yield RemoteEvaluator(LocalProcess(virtual_order(folder), NOBODY, "0"))
