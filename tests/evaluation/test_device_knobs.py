"""Power limit and clock as knobs of a live study, on the stand-in for NVML."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from helpers.nvml_standin import Standin
from helpers.nvml_standin.standin import NO_PERMISSION

from tuner.configuration import Configuration
from tuner.devices.nvidia.nvml_meter import nvml_meter
from tuner.errors import PreflightError, UsageError
from tuner.evaluation.device_knobs import DeviceKnobs
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.launched import launched as live_module
from tuner.evaluation.launched.launched import LaunchSettings, ServedEvaluator, ServerSpec
from tuner.evaluation.traffic import Traffic
from tuner.host.state_folder import state_folder
from tuner.load.workload import load_workload
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Failure, FailureKind, Load, Measurement, Source
from tuner.servers.registry import emulated_server

RUN_TAG = f"test-device-knobs-{os.getpid()}"  # of this worker: a close ends all of the tag


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    made = Standin.create(tmp_path / "nvml.state", n_devices=1)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNER_STATE_DIR", str(tmp_path / "state"))
    yield made
    made.mend()
    made.device(0).mend()


@asynccontextmanager
async def evaluator(
    folder: Path, *extremes: Configuration, window_s: float = 1.5
) -> AsyncIterator[ServedEvaluator]:
    """The emulator's server measured by the meter of real GPUs."""

    def meter(_: Configuration) -> object:
        found = nvml_meter(1)
        assert found is not None
        return found

    command = (sys.executable, "-m", "tuner.emulator")
    spec = ServerSpec(
        emulated_server(command, "emulator", {"TUNER_EMULATED_GPU": "H100-SXM"}),
        source=Source.EMULATED,
        meter=meter,  # type: ignore[arg-type]
        widest=Configuration(),
        defaults={},
    )
    task = MeasurementPlan(
        model="Qwen/Qwen3-8B",
        traffic=Traffic(load_workload("smoke")),
        load=Load(concurrency=8),
        slos=(),
        window=WindowPlan(window_s=window_s, warmup_limit_s=5.0),
        fixed=Configuration(),
    )
    settings = LaunchSettings(RUN_TAG, folder / "logs", 30.0, None)
    made = ServedEvaluator(spec, task, settings, DeviceKnobs(RUN_TAG, extremes))
    try:
        yield made
    finally:
        await made.close()


def power_limit_w(standin: Standin) -> float:
    return float(standin.device(0).limit_w)


async def test_limits_are_set_for_a_trial_and_put_back_to_what_was_found(
    tmp_path: Path, standin: Standin
) -> None:
    device = standin.device(0)
    default_w = 700.0
    device.set(limit_mw=600_000)  # what is found is not the default
    async with evaluator(tmp_path) as live:
        await live.prepare()
        assert power_limit_w(standin) == default_w  # where the baseline is measured
        baseline = await live.evaluate(Configuration(), 0)
        assert isinstance(baseline.result, Measurement), baseline.result
        assert baseline.result.energy_source is Source.MEASURED
        capped = Configuration(device={"power_limit_w": default_w - 200})
        measured = await live.evaluate(capped, 1)
        assert isinstance(measured.result, Measurement), measured.result
        assert power_limit_w(standin) == default_w - 200
    assert power_limit_w(standin) == default_w - 100
    assert list(state_folder().glob("*.json")) == []


async def test_without_permission_the_run_is_refused_and_nothing_changes(
    tmp_path: Path, standin: Standin
) -> None:
    before_w = power_limit_w(standin)
    standin.device(0).fail("nvmlDeviceSetPowerManagementLimit", NO_PERMISSION)
    async with evaluator(tmp_path) as live:
        with pytest.raises(PreflightError):
            await live.prepare()
    assert power_limit_w(standin) == before_w


async def test_a_range_that_the_gpu_does_not_have_is_told_at_the_start(
    tmp_path: Path, standin: Standin
) -> None:
    async with evaluator(tmp_path, Configuration(device={"power_limit_w": 5000})) as live:
        with pytest.raises(UsageError, match="power_limit_w=5000"):
            await live.prepare()


async def test_a_limit_that_somebody_reverts_makes_the_window_invalid(
    tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "COOL_DOWN_S", 0.1)
    device = standin.device(0)
    default_w = 700.0
    async with evaluator(tmp_path) as live:
        await live.prepare()
        original = live._knobs.apply  # type: ignore[union-attr]

        def reverted(configuration: Configuration) -> float | None:
            wanted_w = original(configuration)
            device.set(limit_mw=700_000, enforced_mw=700_000)
            return wanted_w

        monkeypatch.setattr(live._knobs, "apply", reverted)
        capped = Configuration(device={"power_limit_w": default_w - 200})
        result = (await live.evaluate(capped, 1)).result
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.BUSY
    assert "enforced power limit" in result.reason


async def test_a_bench_that_is_prepared_again_keeps_its_gpus(
    tmp_path: Path, standin: Standin
) -> None:
    async with evaluator(tmp_path) as live:
        first = await live.prepare()
        assert await live.prepare() == first  # the next driver's, or after a loss
        capped = Configuration(device={"power_limit_w": 500})
        assert isinstance((await live.evaluate(capped, 1)).result, Measurement)
    assert list(state_folder().glob("*.json")) == []


async def test_a_gpu_that_could_not_be_set_is_tried_again(tmp_path: Path, standin: Standin) -> None:
    device = standin.device(0)
    device.fail("nvmlDeviceSetPowerManagementLimit", NO_PERMISSION)
    capped = Configuration(device={"power_limit_w": 500})
    async with evaluator(tmp_path, capped) as live:
        with pytest.raises(PreflightError, match="Permissions"):
            await live.prepare()
        device.mend()
        await live.prepare()
        assert isinstance((await live.evaluate(capped, 1)).result, Measurement)
        assert power_limit_w(standin) == 500
    assert power_limit_w(standin) == 700
