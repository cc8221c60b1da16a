from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.catalog.diffusion.constants import diffusion_constants
from tuner.catalog.diffusion.model import diffusion_model_names, load_diffusion_model
from tuner.catalog.gpu import load_gpu
from tuner.configuration import Configuration, Value
from tuner.emulator.diffusion.cost import DiffusionCost, Picture
from tuner.emulator.diffusion.launch import DiffusionLaunch, resolve_diffusion
from tuner.emulator.diffusion.service import simulate_generations
from tuner.emulator.engine.power import PowerModel, StepCost
from tuner.emulator.refusal import LaunchRefusedError
from tuner.errors import UsageError
from tuner.load.workload import load_workload
from tuner.measurement.reduce import reduce_run
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.records import Load, Measurement, RawRun, RequestState

H100 = load_gpu("H100-SXM")
MEDIUM = load_diffusion_model("stabilityai/stable-diffusion-3.5-medium")
SQUARE = Picture(1024, 1024, 1, 28)
ALONE = DiffusionLaunch(1, 0, 1, 1, 1)


def cost(
    model: str = MEDIUM.name,
    picture: Picture = SQUARE,
    batch: int = 1,
    device: dict[str, Value] | None = None,
    launch: DiffusionLaunch = ALONE,
) -> StepCost:
    found = DiffusionCost(
        load_diffusion_model(model), H100, diffusion_constants("H100-SXM"), launch
    )
    return found.batch(PowerModel.under(H100, device or {}), picture, batch)


def run(
    load: Load, flags: dict[str, Value], device: dict[str, Value] | None = None, seed: int = 0
) -> RawRun:
    watch = SteadyWindow(WindowPlan(window_s=120.0, warmup_limit_s=120.0))
    return simulate_generations(
        MEDIUM,
        H100,
        Configuration(flags=flags, device=device or {}),
        load_workload("image").requests(),
        load,
        watch,
        seed=seed,
    )


def metrics(raw: RawRun) -> dict[str, float]:
    found = reduce_run(raw, {})
    assert isinstance(found, Measurement)
    return dict(found.metrics)


@pytest.mark.parametrize("name", diffusion_model_names())
def test_every_known_model_has_a_cost(name: str) -> None:
    model = load_diffusion_model(name)
    picture = SQUARE if model.makes == "image" else Picture(480, 832, 81, 50)
    found = cost(name, picture)
    assert 0.1 < found.duration_s < 5000.0
    assert H100.idle_w < found.power_w <= H100.max_limit_w


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([512, 768, 1024]),
    st.integers(1, 60),
    st.integers(1, 16),
    st.sampled_from([300, 450, 700]),
)
def test_more_work_takes_longer_and_a_limit_is_kept(
    side: int, steps: int, batch: int, limit_w: int
) -> None:
    device: dict[str, Value] = {"power_limit_w": limit_w}
    picture = Picture(side, side, 1, steps)
    found = cost(picture=picture, batch=batch, device=device)
    more = [
        cost(picture=picture._replace(steps=steps + 1), batch=batch, device=device),
        cost(picture=picture, batch=batch + 1, device=device),
        cost(picture=picture._replace(height=2 * side), batch=batch, device=device),
    ]
    assert all(other.duration_s > found.duration_s for other in more)
    assert found.power_w <= limit_w or found.clock_mhz == H100.min_clock_mhz
    assert found.duration_s >= cost(picture=picture, batch=batch).duration_s


def test_a_batch_costs_less_for_each_image_and_more_gpus_are_faster() -> None:
    alone, eight = cost(), cost(batch=8)
    assert eight.duration_s / 8 < alone.duration_s
    spread = cost(batch=8, launch=replace(ALONE, ulysses_degree=4))
    assert spread.duration_s < eight.duration_s
    assert 4 * spread.power_w * spread.duration_s > eight.power_w * eight.duration_s


def test_a_closed_loop_accounts_for_every_request_and_joule() -> None:
    raw = run(Load(concurrency=8), {"max_num_seqs": 4, "request_batch_max_wait_ms": 50})
    states = [r.state for r in raw.requests]
    assert states.count(RequestState.CUT) <= 8
    assert RequestState.FAILED not in states
    assert np.all(np.diff(raw.power.energy_j) >= 0)
    assert np.all(raw.server.running <= 4)
    found = metrics(raw)
    assert found["energy_per_image_j"] * found["images_per_s"] == pytest.approx(
        found["mean_power_w"]
    )


def test_the_same_seed_gives_the_same_run() -> None:
    first, again, other = (metrics(run(Load(concurrency=2), {}, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_an_idle_server_draws_idle_power() -> None:
    busy = metrics(run(Load(concurrency=1), {}))
    slow = metrics(run(Load(request_rate=0.08), {}))
    assert slow["mean_power_w"] < 0.75 * busy["mean_power_w"]
    assert slow["energy_per_image_j"] > busy["energy_per_image_j"]


def test_what_does_not_fit_is_out_of_memory() -> None:
    with pytest.raises(LaunchRefusedError, match="out of memory"):
        run(Load(concurrency=64), {"max_num_seqs": 64, "request_batch_max_wait_ms": 100})


@pytest.mark.parametrize(
    ("flags", "says"),
    [({"cfg_parallel_size": 4}, "passes"), ({"ulysses_degree": 16}, "16 GPUs"),
     ({"max_num_seqs": 0}, "at least 1")],
)  # fmt: skip
def test_a_launch_that_cannot_be_is_refused(flags: dict[str, Value], says: str) -> None:
    with pytest.raises(LaunchRefusedError, match=says):
        resolve_diffusion(MEDIUM, H100, flags)


def test_what_is_not_emulated_is_said() -> None:
    with pytest.raises(UsageError, match="unknown emulated flag 'cache_backend'"):
        resolve_diffusion(MEDIUM, H100, {"cache_backend": "cache_dit"})
    with pytest.raises(UsageError, match="not on L4"):
        diffusion_constants("L4")


# measured by ML.ENERGY on one H100: latency of a batch, s, and energy of an image or video, J
MEASURED = [
    ("stabilityai/stable-diffusion-3.5-large", SQUARE, 8, 49.1, 4143),
    ("Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers", Picture(1024, 1024, 1, 50), 4, 31.0, 5154),
    ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", Picture(480, 832, 81, 50), 1, 95.4, 64672),
    ("zai-org/CogVideoX1.5-5B", Picture(768, 1360, 81, 50), 2, 989.3, 336706),
    ("tencent/HunyuanVideo", Picture(720, 1280, 129, 50), 1, 1689.4, 1164112),
]


@pytest.mark.parametrize(("name", "picture", "batch", "latency_s", "energy_j"), MEASURED)
def test_measured_rows(
    name: str, picture: Picture, batch: int, latency_s: float, energy_j: float
) -> None:
    found = cost(name, picture, batch)
    assert found.duration_s == pytest.approx(latency_s, rel=0.15)
    assert found.duration_s * found.power_w / batch == pytest.approx(energy_j, rel=0.25)
