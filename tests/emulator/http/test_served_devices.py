import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import ModelShape
from tuner.configuration import Configuration
from tuner.emulator.device_file import UPDATE_S, DeviceFile, Settings
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.http.served_devices import (
    GOVERNOR_LAG_S,
    ServedDevices,
    create_devices,
    open_devices,
)
from tuner.emulator.http.served_engine import ServedEngine
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.virtual import engine_for
from tuner.errors import UsageError


@pytest.fixture
def file(tmp_path: Path, h100: Gpu) -> DeviceFile:
    return create_devices(tmp_path / "gpus", h100, 2)


@pytest.fixture
async def live(file: DeviceFile, llama: ModelShape, h100: Gpu) -> AsyncIterator[ServedEngine]:
    """An engine on both GPUs."""
    flags = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5}
    engine = engine_for(llama, h100, Configuration(flags=flags), seed=0, noise=False)
    made = ServedEngine(engine, devices=ServedDevices(h100, file.devices))
    await made.start()
    yield made
    await made.stop()


async def generate(live: ServedEngine, number: int, tokens: int = 10_000) -> None:
    async with aclosing(live.generate(Sequence(number, 500, tokens))) as progress:
        async for _ in progress:
            pass


async def settle(live: ServedEngine, seconds: float) -> float:
    await asyncio.sleep(seconds)
    return live.engine.power_w


async def test_the_counter_is_the_engines_energy(
    file: DeviceFile, live: ServedEngine, h100: Gpu
) -> None:
    """Idle, busy and idle again: what the file says is what the engine used, at each instant."""
    origin_s, before_j = live._origin_s, [d.energy_j(live._origin_s) for d in file.devices]
    read: list[tuple[float, float]] = []

    async def look() -> None:
        while True:
            now_s = time.monotonic()
            read.append((now_s - origin_s, sum(d.energy_j(now_s) for d in file.devices)))
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.2)
    await asyncio.gather(*(generate(live, i, 60) for i in range(8)))
    await asyncio.sleep(0.3)
    looking.cancel()
    log = live.engine.log
    assert log is not None
    assert read == sorted(read)
    at_s, used_j = read[-1]
    true_j = live.engine.energy_j + (at_s - live.engine.clock_s) * live.engine.idle_w
    assert used_j - sum(before_j) == pytest.approx(true_j, rel=1e-3)
    now_s = time.monotonic()
    for device in file.devices:
        assert device.mean_power_w(now_s, UPDATE_S) == pytest.approx(live.engine.idle_w / 2)
        assert 0.3 < device.busy_s(now_s) < log.ends_s[-1]
        assert device.pid == os.getpid()
        assert device.memory_used_bytes == round(0.5 * h100.memory_gib * 2**30)


async def test_a_limit_is_obeyed_by_the_engine_that_runs(
    file: DeviceFile, live: ServedEngine
) -> None:
    load = [asyncio.create_task(generate(live, i)) for i in range(64)]
    free_w = await settle(live, 0.6)
    assert free_w > 2 * 260
    assert file.devices[0].clock_mhz == 1980
    file.devices[1].set(Settings(220.0, None))  # the lowest of a group counts for all
    set_s = live.engine.clock_s
    limited_w = await settle(live, 0.5)
    assert limited_w <= 2 * 220 * (1 + 1e-6)
    assert file.devices[0].clock_mhz < 1980
    assert live.engine.log is not None
    ends_s, clocks_mhz = live.engine.log.ends_s, live.engine.log.clocks_mhz
    first_s = ends_s[(ends_s > set_s) & (clocks_mhz < 1980)].min()
    assert set_s + GOVERNOR_LAG_S < first_s < set_s + GOVERNOR_LAG_S + 0.1
    file.devices[1].set(Settings(700.0, 900))
    assert await settle(live, 0.4) < free_w
    assert live.engine.clock_mhz == 900
    file.devices[1].set(Settings(700.0, None))
    assert await settle(live, 0.4) >= free_w  # the contexts have grown meanwhile
    assert live.engine.clock_mhz == 1980
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)


async def test_a_lock_lowers_the_power_of_an_idle_engine(
    file: DeviceFile, live: ServedEngine
) -> None:
    await asyncio.sleep(0.3)
    before_w = file.devices[0].mean_power_w(time.monotonic(), UPDATE_S)
    for device in file.devices:
        device.set(Settings(700.0, 600))
    await asyncio.sleep(0.5)
    assert file.devices[0].mean_power_w(time.monotonic(), UPDATE_S) < before_w
    assert file.devices[0].clock_mhz == 600


async def test_the_gpus_are_left_idle_and_the_counter_goes_on(
    file: DeviceFile, llama: ModelShape, h100: Gpu
) -> None:
    device = file.devices[0]
    for _ in range(2):
        engine = engine_for(llama, h100, Configuration(), seed=0)
        live = ServedEngine(engine, devices=ServedDevices(h100, [device]))
        before_j = device.energy_j(time.monotonic())
        await live.start()
        await generate(live, 0, 10)
        await live.stop()
        used_j = device.energy_j(time.monotonic()) - before_j
        assert used_j == pytest.approx(engine.energy_j, rel=0.2)
        assert device.pid is None
        assert device.mean_power_w(time.monotonic() + 1, UPDATE_S) == pytest.approx(h100.idle_w)


async def test_a_gpu_that_is_taken_refuses_in_vllms_words(
    file: DeviceFile,
    live: ServedEngine,
    llama: ModelShape,
    h100: Gpu,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    engine = engine_for(llama, h100, Configuration(), seed=0)
    with pytest.raises(LaunchRefusedError, match=r"Free memory on device cuda:0 \(39.55/79.10 GiB"):
        await ServedEngine(engine, devices=ServedDevices(h100, file.devices)).start()


def test_the_file_of_another_gpu_is_refused(file: DeviceFile) -> None:
    with pytest.raises(UsageError, match="not the L4"):
        open_devices(file.path, load_gpu("L4"))
