"""A bench whose guardian was ended stops, whichever call runs."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.alive import runs_processes
from helpers.benches import CAPPED, virtual_order
from helpers.scripted import Recorder

from tuner.errors import OperatorNeededError
from tuner.evaluation.remote.hosted import HostedBench


def guardians(folder: Path) -> list[int]:
    return [p.pid for p in runs_processes(folder, "guardian_process")]


@pytest.mark.parametrize("during", ["a later call", "no call"])
async def test_its_guardian_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    monkeypatch.setenv("TUNER_STATE_DIR", str(tmp_path / "state"))
    order = virtual_order(tmp_path)
    spec = order.spec.model_copy(update={"live": True, "window_s": 30.0})
    bench = HostedBench(replace(order, spec=spec), Recorder())
    await bench.run("prepare", ())
    (guardian,) = guardians(tmp_path / "state")
    work = asyncio.create_task(bench.run("evaluate", (CAPPED, 0)))
    if during == "no call":
        work.cancel()
        await asyncio.wait([work])
    else:
        await asyncio.sleep(1.0)
    os.kill(guardian, signal.SIGKILL)
    if during == "no call":
        await asyncio.sleep(1.0)
        work = asyncio.create_task(bench.run("evaluate", (CAPPED, 0)))
    with pytest.raises(OperatorNeededError, match="guardian of this run"):
        await asyncio.wait_for(work, 25.0)
    await bench.close()
    assert not runs_processes(tmp_path / "state", "tuner.emulator")
