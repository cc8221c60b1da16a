"""A bench in a process of its own: the same results, and what a kill of either side leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from helpers.alive import ends, lives
from helpers.benches import CAPPED, check_same_as_here, metrics, virtual_order
from helpers.nvml_standin import Standin
from helpers.scripted import Recorder
from helpers.subprocesses import environment_with_helpers

from tuner.errors import UsageError
from tuner.evaluation.evaluator import BenchLostError
from tuner.evaluation.remote.local_process import LocalProcess
from tuner.evaluation.remote.remote_evaluator import RemoteEvaluator


@pytest.fixture
async def carrier(tmp_path: Path) -> AsyncIterator[LocalProcess]:
    made = LocalProcess(virtual_order(tmp_path), Recorder(), "H100-SXM:3")
    yield made
    await made.close()


async def test_it_returns_what_the_same_evaluator_returns_here(carrier: LocalProcess) -> None:
    there = await check_same_as_here(RemoteEvaluator(carrier))
    assert there.raw is not None and len(there.raw.requests) > 8


async def test_it_raises_what_the_evaluator_raises(tmp_path: Path) -> None:
    order = virtual_order(tmp_path)
    broken = order.spec.model_copy(update={"emulate": "H1000"})
    remote = RemoteEvaluator(LocalProcess(replace(order, spec=broken), Recorder(), "0"))
    try:
        with pytest.raises(UsageError, match="H1000"):
            await remote.prepare()
    finally:
        await remote.close()


async def test_a_bench_sees_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its index: vLLM 0.22 ends with a ValueError where CUDA_VISIBLE_DEVICES has a UUID."""
    standin = Standin.create(tmp_path / "nvml.state", n_devices=2)
    for name, value in standin.environment().items():
        monkeypatch.setenv(name, value)
    order = replace(virtual_order(tmp_path), gpu_uuids=(standin.device(1).uuid,))
    carrier = LocalProcess(order, Recorder(), "1")
    try:
        await carrier.call("prepare")
        variables = psutil.Process(carrier.pid).environ()
        assert variables["CUDA_VISIBLE_DEVICES"] == "1"
        assert variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        os.kill(carrier.pid or 0, signal.SIGKILL)
        standin.set_count(1)
        with pytest.raises(BenchLostError):
            for _ in range(100):
                await carrier.call("prepare")
    finally:
        await carrier.close()


async def test_a_process_that_cannot_be_started_is_a_lost_bench_and_leaves_nothing_open(
    carrier: LocalProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    open_before = psutil.Process().num_fds()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        with pytest.raises(BenchLostError, match=r"be started .*allocate memory") as lost:
            await carrier.call("prepare")
    assert lost.value.__traceback__ is not None  # what its frames hold is not collected yet
    assert psutil.Process().num_fds() == open_before
    await carrier.call("prepare")


async def test_a_killed_bench_is_told_and_opens_again(carrier: LocalProcess) -> None:
    remote = RemoteEvaluator(carrier)
    await remote.prepare()
    assert carrier.pid is not None
    os.kill(carrier.pid, signal.SIGKILL)
    with pytest.raises(BenchLostError, match="code -9"):
        for trial in range(10_000):
            await remote.evaluate(CAPPED, trial)
    assert not remote.is_warm_for(CAPPED)
    assert metrics(await remote.evaluate(CAPPED, 3))


async def test_a_call_may_be_cancelled(carrier: LocalProcess) -> None:
    remote = RemoteEvaluator(carrier)
    await remote.prepare()
    task = asyncio.create_task(remote.evaluate(CAPPED, 1))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert metrics(await remote.evaluate(CAPPED, 1))  # it answers


DRIVER = """
import asyncio, sys, pathlib
from helpers.benches import virtual_order
from helpers.nvml_standin import Standin
from helpers.scripted import Recorder
from helpers.subprocesses import environment_with_helpers
from tuner.evaluation.remote.local_process import LocalProcess

async def main():
    carrier = LocalProcess(virtual_order(pathlib.Path(sys.argv[1])), Recorder(), "0")
    await carrier.call("prepare")
    print(carrier.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_bench_ends_with_its_driver(tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path],
        stdout=subprocess.PIPE,
        env=environment_with_helpers(),
    )
    assert driver.stdout is not None
    bench = int(driver.stdout.readline())
    assert lives(bench)
    driver.kill()
    driver.communicate()
    assert ends(bench, within_s=20.0)
