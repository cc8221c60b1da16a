"""What the live evaluator makes of faults that are not the configuration's."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.live_servers import RUN_TAG, evaluator, launches

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError
from tuner.evaluation.launched import ended_server
from tuner.evaluation.launched import launched as live_module
from tuner.load.workload import Workload, load_workload
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Failure, FailureKind, Measurement
from tuner.servers.launch import LaunchFailedError, PortTakenError
from tuner.servers.processes import tagged_processes


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_workload("smoke")


async def test_an_engine_that_dies_behind_a_server_that_lives(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload, "--emulated-fail-after-tokens 500") as live:
        result = (await live.evaluate(Configuration(), 0)).result
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.UNSTABLE
    assert result.reason.startswith("vLLM lost its engine under load")


async def test_a_broken_gpu_stops_the_night_at_once(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    monkeypatch.setattr(ended_server, "read_log", lambda _: said)
    async with evaluator(tmp_path, workload, "--emulated-die-after-tokens 300") as live:
        with pytest.raises(OperatorNeededError, match=r"uncorrectable ECC.*dmesg.*tuner resume"):
            await live.evaluate(Configuration(), 0)
        assert launches(tmp_path) == 1
    assert tagged_processes(RUN_TAG) == ()


async def test_a_load_that_never_ends_is_given_up_and_its_server_stopped(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object, **__: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(live_module, "run_load", hang)
    monkeypatch.setattr(live_module, "_CLIENT_S", 0.2)
    async with evaluator(tmp_path, workload, window_s=0.01) as live:
        live._plan = replace(live._plan, window=WindowPlan(window_s=0.01, warmup_limit_s=0.01))
        result = (await live.evaluate(Configuration(), 0)).result
        assert isinstance(result, Failure)
        assert result.kind is FailureKind.INFRASTRUCTURE
        assert "the client hangs" in result.reason
        assert tagged_processes(RUN_TAG) == ()


async def test_after_a_fault_of_the_machine_the_next_try_waits(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(live_module, "BACK_OFF_S", (0.1, 0.3))
    fault = LaunchFailedError(Failure(FailureKind.INFRASTRUCTURE, "the port is taken"))

    async def refuse() -> None:
        raise fault

    async with evaluator(tmp_path, workload) as live:
        for _ in range(4):
            began_s = time.monotonic()
            await live._evaluate(Configuration(), refuse, live._plan.run_of(Configuration()))
            slept.append(time.monotonic() - began_s)
        assert slept[1] >= 0.1
        assert min(slept[2:]) >= 0.3
        measured = (await live.evaluate(Configuration(), 4)).result
        assert isinstance(measured, Measurement)
        assert live._faults_in_a_row == 0


async def test_who_has_waited_since_the_fault_waits_no_longer(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "BACK_OFF_S", (3600.0,))
    fault = LaunchFailedError(Failure(FailureKind.INFRASTRUCTURE, "the port is taken"))

    async def refuse() -> None:
        raise fault

    async with evaluator(tmp_path, workload) as live:
        run = live._plan.run_of(Configuration())
        await live._evaluate(Configuration(), refuse, run)
        live._last_fault_s -= 3600.0
        await live._evaluate(Configuration(), refuse, run)  # it would outlast the test
        assert live._faults_in_a_row == 2


@pytest.mark.parametrize("what", ["a load", "without requests"])
async def test_a_port_that_is_taken_is_waited_for_and_a_command_that_is_gone_is_not(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async with evaluator(tmp_path, workload) as live:

        async def refused() -> Failure:
            is_load = what == "a load"
            found = await (
                live.evaluate(Configuration(), 0) if is_load else live.idle(Configuration(), 0, 0.6)
            )
            assert isinstance(found.result, Failure)
            return found.result

        monkeypatch.setattr(live_module, "BACK_OFF_S", (0.0, 0.0))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            live._servers._settings = replace(live._settings, port=port)
            busy = await refused()
        assert busy.kind is FailureKind.BUSY and f"port {port}" in busy.reason
        (tmp_path / "vllm").unlink()
        gone = await refused()
    assert gone.kind is FailureKind.INFRASTRUCTURE and "cannot start" in gone.reason


async def test_a_start_on_a_taken_port_is_no_end_of_the_study(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise PortTakenError("port 8000 cannot be used")

    monkeypatch.setattr(live_module, "switching", refuse)
    async with evaluator(tmp_path, workload) as live:
        found = await live.switching(Configuration(), 0)
    assert found.result == Failure(FailureKind.BUSY, "port 8000 cannot be used")
