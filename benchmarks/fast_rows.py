"""What the emulator says of many measured rows at once, for any constants of their GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from measured_rows import Part, Row, steps_of
from numpy.typing import NDArray

from tuner.catalog.gpu import CLOCK_STEP_MHZ, Gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.emulator.engine.step import (
    BLOCK_TILE,
    EXPERT_TILE,
    UNQUANTIZED_BYTES,
    WIDE_TILE,
    StepParts,
    graph_bound,
    graph_tokens,
)

Array = NDArray[np.float64]

GRAPH_TOKENS = 512  # of vLLM 0.11, whose rows these are
_PARTS = StepParts._fields
# constants in which the times of a step are linear, or linear in their inverse
_LINEAR = (
    *("layer_us", "expert_layer_us", "quantize_us", "sequence_us", "prefill_layer_us"),
    *("prefill_latent_us", "prefill_expert_us", "prefill_state_us"),
    *("host_step_us", "host_sequence_us", "logit_bytes", "sorting_bytes", "all_reduce_us"),
)


class Experts:
    """Routed experts of every step, by the formulas of `StepModel`, for any constants."""

    def __init__(
        self, rows: Sequence[Row], models: Sequence[ModelShape], traces: Sequence[list[Part]]
    ) -> None:
        tokens, shapes = [], []
        for row, model, trace in zip(rows, models, traces, strict=True):
            moe, largest = model.moe, min(GRAPH_TOKENS, graph_bound(row.max_num_seqs))
            for part in trace:
                count = part.batch.decode_sequences + part.batch.prefill_tokens
                tokens.append(float(graph_tokens(count, largest)))
                groups, slices = (row.gpus, 1) if row.experts_split else (1, row.gpus)
                shapes.append(
                    (1.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, groups, slices)
                    if moe is None
                    else (
                        *(moe.count, moe.active, moe.layers, moe.parameters, moe.weights.bytes),
                        *(moe.weights.fp8, moe.reads_all, groups, slices),
                    )
                )
        self._tokens = np.array(tokens)
        self._shapes = np.array(shapes, dtype=float).T

    def add_to(self, parts: Array, gpu: Gpu) -> None:
        """Fill in the experts' columns, and add them to those of all operators."""
        tokens = self._tokens
        count, active, layers, parameters, size, fp8, reads_all, groups, slices = self._shapes
        held, doublings = count / groups, np.log2(groups)
        alike = 1.0 + (tokens - 1.0) * gpu.routing_spread
        share = 1.0 - (1.0 - active / count) ** alike
        spread = np.sqrt(held * share * (1.0 - share))
        touched = np.minimum(held * share + 0.5 * doublings * spread, held)
        touched = np.where(reads_all, held, touched)
        mean = np.where(reads_all, held, held * share)
        wide = (tokens > held) & (size == UNQUANTIZED_BYTES)
        tile = np.where(reads_all, BLOCK_TILE, np.where(wide, WIDE_TILE, EXPERT_TILE))
        mean_rows = tokens * active / groups
        rows = mean_rows * (1.0 + gpu.expert_skew * doublings)
        rows = np.maximum(touched * tile, rows + touched * tile / 2)
        padding = np.maximum(mean * tile, mean_rows + mean * tile / 2) - mean_rows
        switching = mean_rows + gpu.padding_energy * padding
        peak = np.where(fp8, gpu.fp8_tflops or gpu.bf16_tflops, gpu.bf16_tflops)
        flop_s = peak * 1e12 * gpu.matrix_efficiency
        flop = 2.0 * layers * parameters / slices
        each = layers * parameters * size / slices
        read_s = each * touched / (gpu.memory_tb_s * 1e12 * gpu.expert_efficiency)
        packed = np.where(size < 1.0, layers * parameters / slices, 0.0)
        unpack_s = packed / (gpu.unpack_tera_s * 1e12)
        parts[:, 2] = flop * rows / (flop_s * gpu.expert_matrix_share) + unpack_s * touched
        parts[:, 3] = read_s / np.where(wide, gpu.expert_tile_share, 1.0)
        parts[:, 10] += each * mean
        parts[:, 11] += flop * switching / flop_s * np.where(fp8, gpu.eight_bit_energy, 1.0)
        parts[:, 11] += unpack_s * mean
        parts[:, 12] = mean / touched


def without_experts(model: ModelShape) -> ModelShape:
    """Return the model with experts that weigh nothing."""
    return model if model.moe is None else replace(model, moe=replace(model.moe, parameters=0))


class Table:
    """The rows of one GPU as arrays: what each step model says, for any constants, at once."""

    def __init__(self, rows: Sequence[Row], traces: Sequence[list[Part]], gpu: Gpu) -> None:
        whole = {row.model: load_model(row.model) for row in rows}
        models = {name: without_experts(model) for name, model in whole.items()}
        self._experts = Experts(rows, [whole[row.model] for row in rows], traces)
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
            | {"all_reduce_growth": 0.0, "eight_bit_energy": 1.0}
        )
        self._zero = self._evaluate(models, traces, zero)
        self._slopes = {
            name: self._evaluate(models, traces, zero.model_copy(update={name: 1.0})) - self._zero
            for name in _LINEAR
        }
        no_link = zero.model_copy(update={"link_efficiency": 1e12})
        eight = zero.model_copy(update={"eight_bit_energy": 2.0})
        self._eight_bit_s = (self._evaluate(models, traces, eight) - self._zero)[:, 11]
        self._transfer_s = (self._zero - self._evaluate(models, traces, no_link))[:, 6]

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
        out[:, 4] /= gpu.matrix_efficiency
        out[:, 5] /= gpu.attention_efficiency
        out[:, 11] += self._eight_bit_s * (gpu.eight_bit_energy - 1.0)
        out[:, 11] /= gpu.matrix_efficiency
        self._experts.add_to(out, gpu)
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
    busy = working = np.zeros(len(parts))
    for kind, share in (("linear", 1.0), ("expert", balance), ("attention", 1.0)):
        arithmetic = columns[f"{kind}_compute_s"] * slower
        memory = columns[f"{kind}_memory_s"] * starved
        both = np.minimum(arithmetic, memory) * (1.0 - gpu.roofline_overlap)
        takes = np.maximum(arithmetic, memory) + both
        busy, working = busy + takes, working + takes * share
    prefill = columns["prefill_s"] * slower
    working = working + prefill
    compute = columns["matrix_s"] * slower + prefill * gpu.prefill_activity
    busy = busy + prefill + columns["kernel_s"]
    host = columns["host_s"]
    duration = np.maximum(busy, host)  # of asynchronous scheduling
    above = np.maximum(clock_mhz - gpu.knee_mhz, 0) / (gpu.max_clock_mhz - gpu.knee_mhz)
    voltage = (gpu.knee_voltage + (1.0 - gpu.knee_voltage) * above) ** 2
    awake = gpu.idle_w + (gpu.loaded_idle_w - gpu.idle_w + gpu.active_w) * voltage
    core = voltage / slower * (gpu.stall_w * working + gpu.compute_w * compute) / duration
    memory_w = gpu.memory_pj_per_byte * 1e-12 * columns["memory_bytes"] / duration
    return duration, awake + core + memory_w
