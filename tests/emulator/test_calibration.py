from dataclasses import asdict, replace

import numpy as np
import pytest

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import load_model
from tuner.emulator.calibration import NAMES, Multipliers, calibrate, corrected
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.step import Batch, StepModel
from tuner.errors import UsageError

MODEL = load_model("Qwen/Qwen3-8B")
BATCHES = [
    Batch(n, n * context, prefill, prefill * 300.0, prefill, n, n)
    for n, context, prefill in (
        (1, 200, 0),
        (16, 800, 0),
        (64, 400, 0),
        (64, 400, 2048),
        (256, 900, 0),
        (32, 4000, 4096),
    )
]


def predict(gpu: Gpu, index: int) -> tuple[float, ...]:
    cost = PowerModel.under(gpu, {}).step(StepModel(MODEL, gpu).parts(BATCHES[index]))
    tokens_s = BATCHES[index].sampled_sequences / cost.duration_s
    return tokens_s, 1e3 * cost.duration_s, cost.power_w / tokens_s


def machine(gpu: Gpu, **values: float) -> list[tuple[float, ...]]:
    true = corrected(gpu, Multipliers(**values))
    return [predict(true, index) for index in range(len(BATCHES))]


def test_a_machine_like_the_file_changes_nothing(h100: Gpu) -> None:
    result = calibrate(h100, machine(h100), predict)
    assert result.gpu == h100
    assert result.multipliers == Multipliers()
    assert max(result.before + result.after + result.held_out) == pytest.approx(0.0)


@pytest.mark.parametrize(
    "difference",
    [{"memory_speed": 0.85}, {"host_time": 1.3}, {"active_power": 1.15, "idle_power": 1.1}],
)
def test_a_different_machine_is_predicted_better_also_where_it_was_not_measured(
    h100: Gpu, difference: dict[str, float]
) -> None:
    result = calibrate(h100, machine(h100, **difference), predict)
    assert max(result.before) > 0.03
    assert np.mean(result.after) < 0.35 * np.mean(result.before)
    assert np.mean(result.held_out) < 0.6 * np.mean(result.before)
    for name, value in difference.items():
        assert (getattr(result.multipliers, name) - 1) * (value - 1) > 0


def test_a_candidate_that_cannot_serve_a_load_is_passed_by(h100: Gpu) -> None:
    """A trial near the most that the GPU serves: slower candidates have no figures for it."""

    def near_the_edge(gpu: Gpu, index: int) -> tuple[float, ...]:
        is_slower = gpu.memory_efficiency < h100.memory_efficiency
        return (float("nan"),) * 3 if index == 2 and is_slower else predict(gpu, index)

    true = machine(h100, memory_speed=0.85, active_power=1.15)
    result = calibrate(h100, true, near_the_edge)
    assert np.isfinite([*result.before, *result.after, *result.held_out]).all()
    assert np.mean(result.after) <= np.mean(result.before)
    assert result.multipliers.active_power > 1.02


def test_held_out_errors_tell_of_noise_that_cannot_be_learnt(h100: Gpu) -> None:
    random = np.random.default_rng(3)
    noisy = [
        tuple(v * np.exp(0.1 * random.standard_normal()) for v in row) for row in machine(h100)
    ]
    result = calibrate(h100, noisy, predict)
    assert np.mean(result.after) < np.mean(result.held_out)


def test_multipliers_are_drawn_towards_one_and_bounded(h100: Gpu) -> None:
    absurd = [tuple(100.0 * v for v in row) for row in machine(h100)]
    for value in asdict(calibrate(h100, absurd, predict).multipliers).values():
        assert 0.49 < value < 2.02


def test_corrections_stay_possible(h100: Gpu) -> None:
    for name in NAMES:
        for factor in (0.5, 2.0):
            gpu = corrected(h100, replace(Multipliers(), **{name: factor}))
            assert Gpu.model_validate(gpu.model_dump()) == gpu


def test_too_few_measurements(h100: Gpu) -> None:
    with pytest.raises(UsageError, match=r"2 usable measurements: .* at least 3"):
        calibrate(h100, machine(h100)[:2], predict)
