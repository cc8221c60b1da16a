"""The whole live path on an emulated GPU that the real nvidia-ml-py sees and sets."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from helpers.endpoints import served
from helpers.nvml_standin import Standin
from helpers.standin_study import StandinStudy, standin_study
from helpers.studies import CommandLine, wait_for

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.devices.meter import WindowContext
from tuner.devices.nvidia.nvml_meter import NvmlMeter, nvml_meter
from tuner.emulator.device_file import UPDATE_S, DeviceFile, Settings
from tuner.emulator.engine.engine import Engine
from tuner.emulator.http.served_devices import ServedDevices, create_devices
from tuner.emulator.http.served_engine import ServedEngine
from tuner.emulator.http.served_replicas import ServedReplicas
from tuner.emulator.http.server import Server
from tuner.emulator.virtual import engine_for
from tuner.load.workload import load_workload
from tuner.measurement.load_run import run_load
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Load, Source
from tuner.store import TrialRow

LARGE = "meta-llama/Llama-3.3-70B-Instruct"
# long steps, so that a busy machine keeps up
LOAD = (
    "--model",
    "Qwen/Qwen3-32B",
    "--concurrency=8",
    "--window-s=3",  # longer than an answer at 200 W and 900 MHz
    "--trials=5",
    "--no-confirm",
)
SPACE = """
name: power
fixed: {flags: {max_model_len: 4096}}
device:
  power_limit_w: {type: choice, choices: [200, 700]}
  sm_clock_mhz: {type: choice, choices: [900, 1980]}
"""

BATCH = """
name: batch
fixed: {flags: {max_model_len: 4096}}
flags:
  max_num_seqs: {type: choice, choices: [2, 4, 8, 16], default: 4}
"""


@pytest.fixture
def gpus(tmp_path: Path) -> DeviceFile:
    return create_devices(tmp_path / "gpus", load_gpu("H100-SXM"), 2)


@pytest.fixture
def standin(tmp_path: Path, gpus: DeviceFile, monkeypatch: pytest.MonkeyPatch) -> Standin:
    made = Standin.create(tmp_path / "nvml.state", n_devices=2)
    for index in range(2):
        made.device(index).emulate(gpus, index)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def meter(standin: Standin) -> Iterator[NvmlMeter]:
    made = nvml_meter(2)
    assert made is not None
    yield made
    made.close()


@pytest.fixture
async def server(gpus: DeviceFile) -> AsyncIterator[tuple[Engine, float, str]]:
    """An engine on both GPUs that keeps its log, the origin of its clock, and its address.

    Its steps are long, so that it is in time on a busy machine, too.
    """
    gpu = load_gpu("H100-SXM")
    configuration = Configuration(flags={"tensor_parallel_size": 2, "max_model_len": 4096})
    engine = engine_for(load_model(LARGE), gpu, configuration, seed=0)
    live = ServedEngine(engine, devices=ServedDevices(gpu, gpus.devices))
    front = ServedReplicas([live])
    runner = web.AppRunner(Server(front, "m").app(), shutdown_timeout=0.1)
    await runner.setup()
    await front.start()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield engine, live._origin_s, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
    await front.stop()


@asynccontextmanager
async def lateness(engine: Engine, origin_s: float) -> AsyncIterator[list[tuple[float, float]]]:
    """Note by how much the engine is behind the clock on the wall, as it is on a busy machine."""
    noted: list[tuple[float, float]] = []

    async def look() -> None:
        while True:
            now_s = time.monotonic()
            noted.append((now_s, max(now_s - origin_s - engine.clock_s, 0.0)))
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    yield noted
    looking.cancel()


async def test_nvmls_counter_is_the_energy_of_the_engine(
    gpus: DeviceFile, meter: NvmlMeter, server: tuple[Engine, float, str]
) -> None:
    """Within 1 %, and what the engine had not done yet at the edges of the window."""
    engine, origin_s, url = server
    before = await asyncio.to_thread(meter.states)
    requests = load_workload("smoke").requests()
    plan = WindowPlan(window_s=5.0, warmup_limit_s=5.0)
    async with lateness(engine, origin_s) as noted:
        raw, _ = await run_load(
            served(url, "m"),
            requests,
            Load(concurrency=8),
            meter,
            plan,
            latency_source=Source.EMULATED,
        )
    context = WindowContext(before, {pid for s in before for pid in s.pids or ()}, None)
    verdict = await asyncio.to_thread(meter.judge, raw.window_start_s, raw.window_end_s, context)
    assert engine.log is not None
    edges_s = np.array([raw.window_start_s, raw.window_end_s])
    for one in await asyncio.to_thread(meter.states):  # an H100: 38.3 C, and 0.0249 K for each W
        assert one.temperature_c is not None
        assert 41 <= one.temperature_c <= 56
    used_j = np.interp(edges_s - origin_s, engine.log.ends_s, engine.log.energies_j)
    true_j = float(np.diff(used_j)[0])
    assert true_j > 5.0 * 2 * 150  # it was busy
    late_s = sum(max(s for at, s in noted if abs(at - edge) < 0.5) for edge in edges_s)
    within_j = 0.01 * true_j + late_s * true_j / 5.0
    assert verdict.energy_j == pytest.approx(true_j, abs=within_j)
    read_j = np.diff(np.interp(edges_s, raw.power.times_s, raw.power.energy_j))
    assert read_j[0] == pytest.approx(true_j, abs=within_j)
    if late_s < 0.05:
        assert verdict.valid, verdict.reasons
        assert verdict.integral_j == pytest.approx(true_j, rel=0.05)


async def test_everything_that_nvml_says(
    standin: Standin, gpus: DeviceFile, meter: NvmlMeter, server: tuple[Engine, float, str]
) -> None:
    device = gpus.devices[0]
    before_w = device.mean_power_w(time.monotonic(), UPDATE_S)
    (state, _) = await asyncio.to_thread(meter.states)
    after_w = device.mean_power_w(time.monotonic(), UPDATE_S)  # it rises until the model is loaded
    assert (state.uuid, state.name) == (device.uuid, "H100-SXM")
    assert state.pids == (device.pid,)
    assert state.memory_used_bytes == device.memory_used_bytes > 0
    assert state.memory_total_bytes == device.facts.memory_bytes
    assert (state.min_power_limit_w, state.max_power_limit_w) == (200, 700)
    assert (state.power_limit_w, state.enforced_power_limit_w) == (700, 700)
    assert state.power_w is not None
    assert min(before_w, after_w) - 1 <= state.power_w <= max(before_w, after_w) + 1
    assert state.gpu_utilisation == 0
    standin.device(0).set(limit_mw=350_000, lock_min_mhz=900, lock_max_mhz=900)
    assert device.settings == Settings(350.0, 900)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[StandinStudy]:
    with standin_study(tmp_path) as made:
        yield made


@pytest.mark.night
def test_a_whole_study_changes_the_gpu_and_launches_once_for_all_its_limits(
    study: StandinStudy,
) -> None:
    space = study.tuner.folder / "power.yaml"
    space.write_text(SPACE)
    words = study.run_words("--space", str(space), "--allow-gpu-settings", *LOAD)
    done = study.tuner(*words)
    assert done.returncode == 0, done.stderr
    trials = study.tuner.trials("night")
    assert [t.failure for t in trials] == [None] * len(trials)
    assert launches(study.tuner) == ["baseline.log"]
    assert study.left() == []
    assert_obeyed(trials)


@pytest.mark.night
def test_a_study_on_the_emulators_own_gpu_launches_once_for_all_its_limits(tmp_path: Path) -> None:
    tuner = CommandLine(tmp_path)
    (tmp_path / "power.yaml").write_text(SPACE)
    words = "run --workload smoke --emulate H100-SXM --live --study night --sampler random"
    done = tuner(*words.split(), "--space", "power.yaml", *LOAD)
    assert done.returncode == 0, done.stderr
    assert launches(tuner) == ["baseline.log"]
    assert_obeyed(tuner.trials("night"))


@pytest.mark.night
def test_a_folder_of_logs_that_is_removed_costs_no_trial(tmp_path: Path) -> None:
    """Servers were launched on GPUs whose file had been in it, and told as unstable."""
    tuner = CommandLine(tmp_path)
    words = "run --workload smoke --emulate H100-SXM --live --study night --sampler random"
    limits = "--concurrency=2 --window-s=1 --trials=3 --no-confirm"
    (tmp_path / "batch.yaml").write_text(BATCH)
    run = tuner.start(
        *words.split(), *limits.split(), "--space", "batch.yaml", "--model", "Qwen/Qwen3-32B"
    )
    logs = tmp_path / "results" / "logs"
    wait_for(lambda: any(logs.rglob("trial-*.log")) or run.poll() is not None, 60)
    shutil.rmtree(logs)
    _, errors = run.communicate(timeout=100)
    assert run.returncode == 0, errors
    trials = tuner.trials("night")
    assert [t.failure and t.failure.reason for t in trials] == [None] * 3
    assert launches(tuner)  # since the folder was removed


def launches(tuner: CommandLine) -> list[str]:
    logs = tuner.folder / "results" / "logs" / "night"
    return [path.name for path in logs.glob("*.log") if path.name != "guardian.log"]


def assert_obeyed(trials: list[TrialRow]) -> None:
    """Each trial drew what its own limit and clock allow."""
    found = [(t.configuration.device, t.measurement) for t in trials]
    assert {device.get("sm_clock_mhz") for device, _ in found} == {None, 900, 1980}
    for device, measured in found:
        assert measured is not None
        power_w = measured.metrics["mean_power_w"]
        assert power_w <= 1.01 * float(device.get("power_limit_w", 700.0))
        assert (power_w < 400) == (200 in device.values() or 900 in device.values())
