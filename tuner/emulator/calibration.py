"""Calibration: corrects an emulated GPU with a few measurements on a real one.

Six multipliers, drawn towards 1: the speed of memory and of arithmetic, the time of the host and of
short kernels, and the power that is always drawn and that work adds. They are found by least
squares of the logarithm of predicted / measured, in a few Gauss-Newton steps; a step that makes the
fit worse is halved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from tuner.catalog.gpu import Gpu
from tuner.errors import UsageError
from tuner.records import FloatArray

_SHRINKAGE = 0.3  # standard deviation of a multiplier's logarithm before anything is measured
_NOISE = 0.05  # that of a prediction which the best multipliers leave
_STEP = 0.05
_ROUNDS = 3
_HALVINGS = 3
_SETTLED = 0.01  # a step of the logarithms below which no further one is made
_NOT_SERVED = 0.15  # error, as a logarithm, of a load that a candidate cannot serve
_LARGEST_LOG = 0.7  # no multiplier beyond 2 or below 1/2
FEWEST = 3

Predictor = Callable[[Gpu, int], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Multipliers:
    """By how much this machine differs from the GPU's file; 1 is no difference."""

    memory_speed: float = 1.0
    compute_speed: float = 1.0
    host_time: float = 1.0
    kernel_time: float = 1.0
    idle_power: float = 1.0
    active_power: float = 1.0


NAMES = tuple(field.name for field in fields(Multipliers))


@dataclass(frozen=True, slots=True)
class Calibration:
    """The corrected GPU, and mean absolute errors, as shares, by metric.

    `held_out` is the error of each measurement predicted from multipliers that were found without
    it: what to expect of a configuration that was not measured.
    """

    gpu: Gpu
    multipliers: Multipliers
    before: tuple[float, ...]
    after: tuple[float, ...]
    held_out: tuple[float, ...]


def corrected(gpu: Gpu, multipliers: Multipliers) -> Gpu:
    """Return the GPU with its constants multiplied; efficiencies stay at most 1."""
    memory, compute = multipliers.memory_speed, multipliers.compute_speed
    host, kernels = multipliers.host_time, multipliers.kernel_time
    active = multipliers.active_power
    idle_w = min(gpu.loaded_idle_w * multipliers.idle_power, gpu.default_limit_w)
    return gpu.model_copy(
        update={
            "memory_efficiency": min(gpu.memory_efficiency * memory, 1.0),
            "expert_efficiency": min(gpu.expert_efficiency * memory, 1.0),
            "attention_efficiency": min(gpu.attention_efficiency * memory, 1.0),
            "matrix_efficiency": min(gpu.matrix_efficiency * compute, 1.0),
            "host_step_us": gpu.host_step_us * host,
            "host_sequence_us": gpu.host_sequence_us * host,
            "eager_layer_us": gpu.eager_layer_us * host,
            "token_us": gpu.token_us * host,
            "layer_us": gpu.layer_us * kernels,
            "expert_layer_us": gpu.expert_layer_us * kernels,
            "sequence_us": gpu.sequence_us * kernels,
            "prefill_layer_us": gpu.prefill_layer_us * kernels,
            "idle_w": min(gpu.idle_w * multipliers.idle_power, idle_w),
            "loaded_idle_w": idle_w,
            "active_w": gpu.active_w * multipliers.idle_power,
            "stall_w": gpu.stall_w * active,
            "compute_w": gpu.compute_w * active,
            "memory_pj_per_byte": gpu.memory_pj_per_byte * active,
        }
    )


def calibrate(gpu: Gpu, measured: Sequence[tuple[float, ...]], predict: Predictor) -> Calibration:
    """Fit the multipliers to `measured`, one tuple of positive metrics for each measurement.

    `predict(gpu, index)` predicts the metrics of a measurement without noise; NaN for a GPU that
    cannot serve its load, which `gpu` itself has to. Raises `UsageError` for fewer than three
    measurements.
    """
    if len(measured) < FEWEST:
        raise UsageError(
            f"{len(measured)} usable measurements: a calibration needs at least {FEWEST}, of"
            " configurations that differ; measure more (tuner run) or name more studies"
        )
    targets = np.log(np.array(measured))
    every = range(len(measured))

    def logs(position: FloatArray, indices: Sequence[int] = every) -> FloatArray:
        candidate = corrected(gpu, _at(position))
        values: FloatArray = np.array([predict(candidate, index) for index in indices])
        return np.asarray(np.log(values), dtype=np.float64)

    found = np.zeros(len(NAMES))
    first = base = logs(found)
    slopes = _slopes(logs, found, base)
    for _ in range(_ROUNDS):
        step = _solve(slopes, targets - base, found) - found
        found, base, moved = _tried(logs, found, base, step, targets)
        if not moved or np.abs(step).max() < _SETTLED:
            break
        slopes = _slopes(logs, found, base)
    left_out = [
        _filled(
            logs(_solve(np.delete(slopes, i, 0), np.delete(targets - base, i, 0), found), [i]),
            targets[[i]],
        )
        for i in every
    ]
    return Calibration(
        gpu=corrected(gpu, _at(found)),
        multipliers=_at(found),
        before=_errors(first - targets),
        after=_errors(base - targets),
        held_out=_errors(np.concatenate(left_out) - targets),
    )


def _at(position: FloatArray) -> Multipliers:
    """Return the multipliers with these logarithms, shape (multipliers,)."""
    return Multipliers(**dict(zip(NAMES, map(float, np.exp(position)), strict=True)))


def _slopes(
    logs: Callable[[FloatArray], FloatArray], position: FloatArray, base: FloatArray
) -> FloatArray:
    """Return how every prediction grows with each logarithm; (measurements, metrics, names)."""
    steps = _STEP * np.eye(len(NAMES))
    found = np.stack([(logs(position + step) - base) / _STEP for step in steps], axis=-1)
    return np.nan_to_num(found)


def _solve(slopes: FloatArray, differences: FloatArray, position: FloatArray) -> FloatArray:
    """Return the most likely logarithms, each drawn towards 0, by the slopes at `position`."""
    rows = slopes.reshape(-1, len(NAMES))
    pull = (_NOISE / _SHRINKAGE) ** 2 * np.eye(len(NAMES))
    wanted = differences.reshape(-1) + rows @ position
    found = np.linalg.solve(rows.T @ rows + pull, rows.T @ wanted)
    return np.clip(found, -_LARGEST_LOG, _LARGEST_LOG)


def _tried(
    logs: Callable[[FloatArray], FloatArray],
    position: FloatArray,
    base: FloatArray,
    step: FloatArray,
    targets: FloatArray,
) -> tuple[FloatArray, FloatArray, bool]:
    """Go the step, or a part of it, if that fits better; returns where, and the predictions."""

    def cost(at: FloatArray, values: FloatArray) -> float:
        misfit = float(((values - targets) ** 2).sum()) / _NOISE**2
        return misfit + float((at**2).sum()) / _SHRINKAGE**2

    for halving in range(_HALVINGS):
        there = position + step / 2**halving
        values = _filled(logs(there), targets)
        if cost(there, values) < cost(position, base):
            return there, values, True
    return position, base, False


def _filled(values: FloatArray, targets: FloatArray) -> FloatArray:
    """Return predictions in which what could not be served is far from what was measured."""
    return np.where(np.isnan(values), targets + _NOT_SERVED, values)


def _errors(logarithms: FloatArray) -> tuple[float, ...]:
    """Mean absolute error of each metric, as a share of the measured value."""
    means = np.abs(np.expm1(logarithms)).mean(axis=0)
    return tuple(float(mean) for mean in means)
