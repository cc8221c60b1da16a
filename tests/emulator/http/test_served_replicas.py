import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.configuration import Configuration
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.http.metrics_page import CopyMetrics, page
from tuner.emulator.http.served_engine import ServedEngine
from tuner.emulator.http.served_replicas import ServedReplicas
from tuner.emulator.virtual import replicas_for
from tuner.servers.vllm.counters import parse_metrics


@pytest.fixture
async def live(llama: ModelShape, h100: Gpu) -> AsyncIterator[ServedReplicas]:
    configuration = Configuration(flags={"data_parallel_size": 3})
    front = replicas_for(llama, h100, configuration, seed=0, noise=False)
    made = ServedReplicas([ServedEngine(engine) for engine in front.engines])
    await made.start()
    yield made
    await made.stop()


async def tokens_of(live: ServedEngine, number: int, tokens: int) -> int:
    async with aclosing(live.generate(Sequence(number, 100, tokens))) as progress:
        return max([made async for made in progress], default=0)


async def test_each_request_goes_to_the_least_busy_copy(live: ServedReplicas) -> None:
    sent = []
    for number in range(7):
        sent.append(asyncio.create_task(tokens_of(live.least_busy(), number, 40)))
        await asyncio.sleep(0)
    assert sorted(c.engine.running + c.engine.waiting for c in live.copies) == [2, 2, 3]
    read = parse_metrics(page(live, [CopyMetrics()] * 3, "m").encode())
    assert (read.running or 0) + (read.waiting or 0) == 7
    assert read.emulated_power_w is not None and read.emulated_power_w > 3 * 100
    assert read.emulated_sm_clock_mhz is not None and 1000 < read.emulated_sm_clock_mhz <= 1980
    assert await asyncio.gather(*sent) == [40] * 7
    energies_j = [copy.engine.energy_j for copy in live.copies]
    assert min(energies_j) > 0
    assert live.energy_j() >= sum(energies_j)


async def test_when_one_dies_all_do(live: ServedReplicas) -> None:
    streams = [asyncio.create_task(tokens_of(copy, i, 9000)) for i, copy in enumerate(live.copies)]
    await asyncio.sleep(0.1)
    live.copies[1].break_down()
    made = await asyncio.wait_for(asyncio.gather(*streams), 2)
    assert all(0 < tokens < 9000 for tokens in made)
    assert await tokens_of(live.least_busy(), 9, 5) == 0


async def test_the_cache_is_emptied_only_where_nothing_runs(live: ServedReplicas) -> None:
    assert live.reset_prefix_cache()
    running = asyncio.create_task(tokens_of(live.least_busy(), 0, 500))
    await asyncio.sleep(0.1)
    assert not live.reset_prefix_cache()
    running.cancel()
