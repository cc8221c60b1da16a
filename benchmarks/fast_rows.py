"""What the emulator says of many measured rows at once, for any constants of their GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from measured_rows import Part, Row, steps_of
from numpy.typing import NDArray

from tuner.catalog.gpu import CLOCK_STEP_MHZ, Gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.emulator.engine.step import StepParts

Array = NDArray[np.float64]

_PARTS = StepParts._fields
# constants in which the times of a step are linear, or linear in their inverse
_LINEAR = (
    *("layer_us", "expert_layer_us", "quantize_layer_us", "prefill_layer_us"),
    *("prefill_latent_us", "prefill_expert_us", "prefill_state_us"),
    *("host_step_us", "host_sequence_us", "logit_bytes", "expert_skew", "all_reduce_us"),
)


class Table:
    """The rows of one GPU as arrays: what each step model says, for any constants, at once."""

    def __init__(self, rows: Sequence[Row], traces: Sequence[list[Part]], gpu: Gpu) -> None:
        models = {row.model: load_model(row.model) for row in rows}
        self.rows, self.base = rows, gpu
        parts = [part for trace in traces for part in trace]
        self._row = np.repeat(np.arange(len(rows)), [len(trace) for trace in traces])
        self._steps = np.array([part.steps for part in parts])
        self._inside = np.array([part.inside for part in parts])
        self._decodes = np.array([float(part.batch.decode_sequences) for part in parts])
        self._sampled = np.array([float(part.batch.sampled_sequences) for part in parts])
        self._gpus = np.array([float(row.gpus) for row in rows])
        zero = gpu.model_copy(
            update=dict.fromkeys(_LINEAR, 0.0)
            | {"matrix_efficiency": 1.0, "memory_efficiency": 1.0, "expert_efficiency": 1.0}
            | {"attention_efficiency": 1.0, "expert_matrix_share": 1.0, "link_efficiency": 1.0}
            | {"expert_tile_share": 1.0, "all_reduce_growth": 0.0}
        )
        self._zero = self._evaluate(models, traces, zero)
        self._slopes = {
            name: self._evaluate(models, traces, zero.model_copy(update={name: 1.0})) - self._zero
            for name in _LINEAR
        }
        no_link = zero.model_copy(update={"link_efficiency": 1e12})
        self._transfer_s = (self._zero - self._evaluate(models, traces, no_link))[:, 6]
        tiled = zero.model_copy(update={"expert_tile_share": 0.5})
        with np.errstate(divide="ignore", invalid="ignore"):
            slower = self._evaluate(models, traces, tiled)[:, 3] / self._zero[:, 3]
        self._tiled = np.nan_to_num(slower, nan=1.0) > 1.5

    def _evaluate(
        self, models: Mapping[str, ModelShape], traces: Sequence[list[Part]], gpu: Gpu
    ) -> Array:
        return np.array(
            [
                [getattr(parts, name) for name in _PARTS]
                for row, trace in zip(self.rows, traces, strict=True)
                for steps in [steps_of(row, models[row.model], gpu)]
                for parts in (steps.parts(part.batch) for part in trace)
            ]
        )

    def parts(self, gpu: Gpu) -> Array:
        """Return the times of every step; one column for each field of `StepParts`."""
        out = self._zero.copy()
        for name, slope in self._slopes.items():
            growth = 1.0
            if name == "all_reduce_us":
                growth = (self._gpus[self._row, None] / 2) ** gpu.all_reduce_growth
            out += getattr(gpu, name) * growth * slope
        out[:, 6] += self._transfer_s * (1.0 / gpu.link_efficiency - 1.0)
        out[:, 0] /= gpu.matrix_efficiency
        out[:, 1] /= gpu.memory_efficiency
        out[:, 2] /= gpu.matrix_efficiency * gpu.expert_matrix_share
        out[:, 3] /= gpu.expert_efficiency * np.where(self._tiled, gpu.expert_tile_share, 1.0)
        out[:, 4] /= gpu.matrix_efficiency
        out[:, 5] /= gpu.attention_efficiency
        return out

    def predict(self, gpu: Gpu) -> Array:
        """Return the metrics of every row, in the order of METRICS."""
        duration_s, power_w = _step(self.parts(gpu), gpu)
        weight = self._steps * self._inside
        count = len(self.rows)
        time_s = np.bincount(self._row, weight * duration_s, count)
        energy_j = self._gpus * np.bincount(self._row, weight * duration_s * power_w, count)
        tokens = np.bincount(self._row, weight * self._sampled, count)
        itl_s = self._medians(duration_s)
        return np.stack([energy_j / tokens, energy_j / time_s, tokens / time_s, 1e3 * itl_s], 1)

    def _medians(self, duration_s: Array) -> Array:
        order = np.lexsort((duration_s, self._row))
        weights = (self._steps * self._decodes)[order]
        bounds = np.searchsorted(self._row, np.arange(len(self.rows) + 1))
        medians = []
        for low, high in pairwise(bounds):
            middles = np.cumsum(weights[low:high]) - weights[low:high] / 2
            half = weights[low:high].sum() / 2
            medians.append(np.interp(half, middles, duration_s[order[low:high]]))
        return np.array(medians)


def _step(parts: Array, gpu: Gpu) -> tuple[Array, Array]:
    """Times and power of many steps under the default limit, as `PowerModel.step`."""
    steps = (gpu.max_clock_mhz - gpu.min_clock_mhz) // CLOCK_STEP_MHZ
    low, high = np.zeros(len(parts), int), np.full(len(parts), steps)
    top = np.full(len(parts), gpu.max_clock_mhz)
    _, power_w = _at_clock(parts, top, gpu)
    bound = power_w > gpu.default_limit_w * gpu.limit_use
    while np.any(high - low > 1):
        middle = (low + high) // 2
        _, power_w = _at_clock(parts, gpu.min_clock_mhz + CLOCK_STEP_MHZ * middle, gpu)
        fits = power_w <= gpu.default_limit_w * gpu.limit_use
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    clock = np.where(bound, gpu.min_clock_mhz + CLOCK_STEP_MHZ * low, top)
    return _at_clock(parts, clock, gpu)


def _at_clock(parts: Array, clock_mhz: Array, gpu: Gpu) -> tuple[Array, Array]:
    columns = dict(zip(_PARTS, parts.T, strict=True))
    slower = gpu.max_clock_mhz / clock_mhz
    starved = np.maximum(1.0, gpu.full_bandwidth_mhz / clock_mhz)
    balance = columns["expert_balance"]
    busy = working = compute = np.zeros(len(parts))
    for kind, share in (("linear", 1.0), ("expert", balance), ("attention", 1.0)):
        arithmetic = columns[f"{kind}_compute_s"] * slower
        memory = columns[f"{kind}_memory_s"] * starved
        both = np.minimum(arithmetic, memory) * (1.0 - gpu.roofline_overlap)
        takes = np.maximum(arithmetic, memory) + both
        busy, working = busy + takes, working + takes * share
        compute = compute + arithmetic * share
    prefill = columns["prefill_s"] * slower
    working, compute = working + prefill, compute + prefill * gpu.prefill_activity
    busy = busy + prefill + columns["kernel_s"]
    host = columns["host_s"]
    duration = busy + host - gpu.host_overlap * np.minimum(busy, host)
    above = np.maximum(clock_mhz - gpu.knee_mhz, 0) / (gpu.max_clock_mhz - gpu.knee_mhz)
    voltage = (gpu.knee_voltage + (1.0 - gpu.knee_voltage) * above) ** 2
    awake = gpu.idle_w + (gpu.loaded_idle_w - gpu.idle_w + gpu.active_w) * voltage
    core = voltage / slower * (gpu.stall_w * working + gpu.compute_w * compute) / duration
    memory_w = gpu.memory_pj_per_byte * 1e-12 * columns["memory_bytes"] / duration
    return duration, awake + core + memory_w
