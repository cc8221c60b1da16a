"""A window whose energy the meter does not vouch for counts nowhere, with requests or without."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from helpers.evaluators import attached, launched
from helpers.live_servers import RUN_TAG, evaluator

from tuner.configuration import Configuration
from tuner.devices.emulated.meters import EmulatorServerMeter
from tuner.devices.energy_window import WindowVerdict
from tuner.evaluation.attached import AttachedEvaluator
from tuner.evaluation.evaluator import Evaluation, Evaluator
from tuner.evaluation.launched import launched as launched_module
from tuner.load.workload import Workload, load_workload
from tuner.records import Failure, FailureKind, Measurement
from tuner.servers.processes import tagged_processes

CROWDED = WindowVerdict(False, ("other processes on GPU-1 after the window: 77",), (), None, None)
MEASURE: dict[str, Callable[[Evaluator], Awaitable[Evaluation]]] = {
    "a load": lambda member: member.evaluate(Configuration(), 0),
    "without requests": lambda member: member.idle(Configuration(), 1, window_s=0.6),
}


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_workload("smoke")


@pytest.mark.parametrize("opened", [launched, attached])
@pytest.mark.parametrize("what", MEASURE)
async def test_it_is_tried_again_when_the_machine_is_quiet(
    opened: Callable, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmulatorServerMeter, "judge", lambda *_: CROWDED)
    monkeypatch.setattr(launched_module, "COOL_DOWN_S", 0.0)
    async with opened(tmp_path) as member:
        await member.prepare()
        result = (await MEASURE[what](member)).result
        await member.close()
    assert isinstance(result, Failure), result
    assert result.kind is FailureKind.BUSY
    assert result.reason.endswith(CROWDED.reasons[0])


async def test_a_server_that_ends_while_idle_has_no_idle_power(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload) as live:
        await live.defaults()
        idle = asyncio.create_task(live.idle(Configuration(), 0, window_s=1.5))
        await asyncio.sleep(0.8)
        for process in tagged_processes(RUN_TAG):
            os.kill(process.pid, signal.SIGKILL)
        result = (await idle).result
    assert isinstance(result, Failure) and result.kind is FailureKind.UNSTABLE
    assert "ended with code -9 while nothing was asked of it" in result.reason


async def test_who_uses_the_gpus_of_a_running_server_already_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def judge(_: object, *window: object) -> WindowVerdict:
        seen.append(window[-1])
        return WindowVerdict(True, (), (), None, None)

    monkeypatch.setattr(EmulatorServerMeter, "judge", judge)
    async with attached(tmp_path) as member:
        assert isinstance(member, AttachedEvaluator)
        result = (await member.evaluate(Configuration(), 0)).result
        await member.close()
    assert isinstance(result, Measurement)
    assert [(one.own_pids, one.power_limit_w) for one in seen] == [(frozenset(), None)]
