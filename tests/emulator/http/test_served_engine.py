import asyncio
import time
from contextlib import aclosing

import pytest

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.configuration import Configuration
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.http.served_engine import ServedEngine
from tuner.emulator.virtual import engine_for


@pytest.fixture
def live(llama: ModelShape, h100: Gpu) -> ServedEngine:
    configuration = Configuration(flags={"max_num_seqs": 8})
    engine = engine_for(llama, h100, configuration, seed=0, noise=False, keep_log=False)
    return ServedEngine(engine)


async def tokens_of(live: ServedEngine, sequence: Sequence) -> list[int]:
    async with aclosing(live.generate(sequence)) as progress:
        return [tokens async for tokens in progress]


async def test_the_emulated_clock_is_the_schedule(live: ServedEngine) -> None:
    await live.start()
    begun_s = time.monotonic()
    progress = await tokens_of(live, Sequence(0, 100, 60))
    took_s = time.monotonic() - begun_s
    emulated_s = live.engine.clock_s
    await live.stop()
    assert progress[-1] == 60
    assert progress == sorted(set(progress))
    assert emulated_s - 0.01 <= took_s < emulated_s + 0.2  # 60 steps that each slept on their own
    assert 0.3 < took_s < 1.0


async def test_speed_makes_it_faster(live: ServedEngine, llama: ModelShape, h100: Gpu) -> None:
    engine = engine_for(llama, h100, Configuration(), seed=0, noise=False, keep_log=False)
    fast = ServedEngine(engine, speed=50.0)
    await fast.start()
    begun_s = time.monotonic()
    await tokens_of(fast, Sequence(0, 100, 300))
    took_s = time.monotonic() - begun_s
    await fast.stop()
    assert engine.clock_s > 1.5
    assert took_s < 1.0


async def test_energy_runs_on_while_idle_and_while_busy(live: ServedEngine) -> None:
    await live.start()
    idle_w = live.engine.idle_w
    before_j, before_s = live.energy_j(), live.now_s()
    await asyncio.sleep(0.1)
    idle_j, idle_s = live.energy_j() - before_j, live.now_s() - before_s
    assert idle_j == pytest.approx(idle_w * idle_s, rel=0.01)
    assert live.power_w() == idle_w

    samples: list[float] = []

    async def watch() -> None:
        while True:
            samples.append(live.energy_j())
            await asyncio.sleep(0.003)

    watcher = asyncio.create_task(watch())
    begun_j, begun_s = live.energy_j(), live.now_s()
    await tokens_of(live, Sequence(0, 100, 30))
    used_w = (live.energy_j() - begun_j) / (live.now_s() - begun_s)
    watcher.cancel()
    await live.stop()
    assert used_w > 1.5 * idle_w
    assert samples == sorted(samples)


async def test_leaving_a_stream_aborts_its_sequence(live: ServedEngine) -> None:
    await live.start()
    async with aclosing(live.generate(Sequence(0, 100, 10_000))) as progress:
        async for tokens in progress:
            if tokens >= 3:
                break
    assert (live.engine.running, live.engine.waiting) == (0, 0)
    assert live.engine.free_blocks == live.engine.launch.kv_blocks
    assert (await tokens_of(live, Sequence(1, 10, 2)))[-1] == 2
    await live.stop()


async def test_a_broken_engine_ends_streams_early(live: ServedEngine) -> None:
    await live.start()
    stream = asyncio.create_task(tokens_of(live, Sequence(0, 10, 10_000)))
    await asyncio.sleep(0.1)
    live.break_down()
    progress = await asyncio.wait_for(stream, 1.0)
    assert 0 < progress[-1] < 10_000
    assert await asyncio.wait_for(tokens_of(live, Sequence(1, 10, 5)), 1.0) == []
    await live.stop()
