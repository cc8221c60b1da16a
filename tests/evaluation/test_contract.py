"""What every evaluator promises, whatever it evaluates on."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import aiohttp
import pytest
from helpers.benches import virtual_order
from helpers.live_servers import evaluator as launched_evaluator

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.evaluation.attached import AttachedEvaluator
from tuner.evaluation.emulated.emulation import TextEmulation
from tuner.evaluation.evaluator import IDLE_POWER, Evaluation, Evaluator, MeasurementPlan
from tuner.evaluation.launched.launch_sharing import LiveKnobs
from tuner.evaluation.remote.local_process import LocalProcess
from tuner.evaluation.remote.remote_evaluator import RemoteEvaluator
from tuner.evaluation.traffic import Traffic
from tuner.evaluation.virtual import VirtualEvaluator
from tuner.load.workload import load_workload
from tuner.measurement.listener import NOBODY
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Load, Measurement
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


MEMBERS: dict[str, Callable[[Path], Opened]] = {
    "virtual": virtual,
    "launched": launched,
    "attached": attached,
    "remote": remote,
}


@pytest.fixture(params=sorted(MEMBERS))
async def member(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Evaluator]:
    async with MEMBERS[request.param](tmp_path) as made:
        yield made
        await made.close()
        await made.close()  # a second time is nothing


def require_measured(evaluation: Evaluation) -> Measurement:
    assert isinstance(evaluation.result, Measurement), evaluation.result
    assert evaluation.raw is not None
    assert evaluation.timing.elapsed_s > 0.0
    return evaluation.result


async def test_it_says_what_it_runs_on_and_measures_with_those_sources(member: Evaluator) -> None:
    testbed = await member.prepare()
    assert testbed.gpu and testbed.server_version
    defaults = await member.defaults()
    assert defaults["concurrency"] == 8
    result = require_measured(await member.evaluate(Configuration(), 0))
    assert result.energy_source is testbed.energy_source
    assert result.latency_source is testbed.latency_source
    for metric in ("energy_per_output_token_j", "output_throughput_tok_s", "p99_tpot_ms"):
        assert result.metrics[metric] > 0.0


async def test_what_it_has_evaluated_it_can_evaluate_again_without_a_launch(
    member: Evaluator,
) -> None:
    await member.prepare()
    await member.defaults()
    require_measured(await member.evaluate(Configuration(), 0))
    assert member.is_warm_for(Configuration())
    again = await member.evaluate(Configuration(), 1)
    require_measured(again)
    assert again.timing.launch_s is None
    assert again.spent(wall_s=123.0).elapsed_s == (
        again.timing.elapsed_s if again.is_virtual else 123.0
    )


async def test_a_load_knob_changes_the_load_and_a_repeat_is_measured_too(member: Evaluator) -> None:
    await member.prepare()
    await member.defaults()
    one = Configuration(load={"concurrency": 1})
    alone = require_measured(await member.evaluate(one, 1))
    eight = require_measured(await member.confirm(Configuration(), 0, 0))
    name = "output_throughput_tok_s"
    assert alone.metrics[name] < eight.metrics[name]


async def test_another_load_and_none_are_measured_on_the_warm_server(member: Evaluator) -> None:
    await member.prepare()
    await member.evaluate(Configuration(), 0)
    run = replace(PLAN.run_of(Configuration(), 3), load=Load(concurrency=2))
    probed = await member.probe(Configuration(), 0, run)
    busy = require_measured(probed)
    assert probed.timing.launch_s is None
    idle = (await member.idle(Configuration(), 1, window_s=0.6)).result
    assert isinstance(idle, Measurement) and list(idle.metrics) == [IDLE_POWER]
    assert 0.0 < idle.metrics[IDLE_POWER] < busy.metrics["mean_power_w"]
