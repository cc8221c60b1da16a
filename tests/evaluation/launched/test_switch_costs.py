"""Starts, sleep and waking on a server of our own, metered by a counter that always runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helpers.live_servers import RUN_TAG, evaluator

from tuner.analysis.deployment.switching import Sleep, Switching
from tuner.configuration import Configuration
from tuner.devices.meter import PowerReading
from tuner.evaluation.launched.switch_costs import switching
from tuner.evaluation.launched.warm_server import LaunchSettings, ServerSpec, WarmServers
from tuner.load.workload import load_workload
from tuner.records import Measurement, Source
from tuner.servers.registry import emulated_server

WATTS = 100.0


class Counter:
    """A GPU that draws the same power whatever happens."""

    gpu, driver, source = "GPU", None, Source.MEASURED

    def read(self, now_s: float) -> PowerReading:
        return PowerReading(now_s, WATTS, now_s * WATTS)

    def states(self) -> tuple[()]:
        return ()

    def close(self) -> None:
        pass


async def test_a_start_sleep_and_waking_are_measured(tmp_path: Path) -> None:
    async with evaluator(tmp_path, load_workload("smoke")):
        script = tmp_path / "vllm"
    spec = ServerSpec(
        emulated_server((str(script),), "emulator", {}),
        source=Source.EMULATED,
        meter=lambda _: Counter(),  # type: ignore[arg-type,return-value]
        widest=Configuration(),
        defaults={},
    )
    settings = LaunchSettings(RUN_TAG, tmp_path / "logs", 30.0, None)
    servers = WarmServers("Qwen/Qwen3-0.6B", spec, settings)
    began_s = time.monotonic()
    try:
        found = await switching(servers, spec, Configuration(), "switching", rest_s=0.2)
    finally:
        await servers.close()
    took_s = time.monotonic() - began_s
    assert isinstance(found, Measurement), found
    costs = Switching.of(found.metrics)
    assert 0.2 < costs.start_s < took_s
    assert costs.start_energy_j == pytest.approx(WATTS * costs.start_s, rel=1e-3)
    assert costs.off_power_w == pytest.approx(WATTS, rel=1e-3)
    assert [sleep.level for sleep in costs.sleeps] == [1, 2]
    reading_s = 1.5e9 / 3e9  # its weights from a disk
    assert costs.sleeps[1].wake_s > 0.5 * reading_s > 0.5 * costs.sleeps[1].sleep_s
    assert Switching.of(costs.metrics()) == costs


def test_a_level_that_was_not_measured_is_absent() -> None:
    whole = Switching(90.0, 9e3, 70.0, (Sleep(1, 1.0, 100.0, 90.0, 2.0, 300.0),))
    metrics = dict(whole.metrics())
    assert Switching.of(metrics) == whole
    del metrics["wake1_s"]
    assert Switching.of(metrics).sleeps == ()
