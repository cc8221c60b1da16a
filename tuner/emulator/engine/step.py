"""Roofline time of one engine step on each GPU of a server.

Each group of operators in a step has a compute time, which grows as the SM clock falls, and a
memory time, which does not; the longer one counts, and a part of the shorter one. Short kernels,
communication and the host add times that depend on neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from tuner.catalog.gpu import Gpu
from tuner.catalog.model_shape import AttentionLayers, ExpertLayers, ModelShape

_KERNEL_LAUNCH_S = 6e-6
_KERNELS_PER_LAYER = 12
_ACTIVATION_BYTES = 2
# a grouped matrix product pads the tokens of each expert to so many
EXPERT_TILE = 16
WIDE_TILE = 64  # vLLM's default for more tokens than experts
BLOCK_TILE = 128  # DeepGEMM's, for 8-bit weights in blocks
UNQUANTIZED_BYTES = 2.0


class Batch(NamedTuple):
    """What one step works on, summed over its sequences."""

    decode_sequences: int = 0
    decode_context_tokens: int = 0  # keys read by the decoding sequences
    prefill_tokens: int = 0
    prefill_pairs: float = 0.0  # query-key pairs of the prefills
    prefill_context_tokens: int = 0  # keys read by the prefills
    sampled_sequences: int = 0  # sequences that get a token
    scheduled_sequences: int = 0


class StepParts(NamedTuple):
    """Times of one step's parts at the highest clock, and the bytes it moves, on one GPU."""

    linear_compute_s: float
    linear_memory_s: float
    expert_compute_s: float
    expert_memory_s: float
    attention_compute_s: float
    attention_memory_s: float
    kernel_s: float  # what short kernels and communication take, whatever the clock
    prefill_s: float  # what a prefill adds outside of the CUDA graphs
    host_s: float
    host_overlap: float  # of host time and GPU time, as a share of the shorter one
    memory_bytes: float
    matrix_s: float  # time of the arithmetic at the peak rate: what its energy follows
    expert_balance: float = 1.0  # work of the mean GPU / of the busiest one, which is waited for


class _Fixed(NamedTuple):
    """What is the same for all batches."""

    flop_s: float  # of one GPU, in 16 bits
    memory_bytes_s: float
    attention_bytes_s: float
    dense_token_s: float  # arithmetic of a token
    dense_matrix_s: float  # the same, as far as its energy goes
    dense_bytes: float
    unpack_s: float  # of weights of fewer than 8 bits
    width: int  # activations of a token in one layer
    kernels_s: float
    prefill_s: float
    largest_graph: int
    key_bytes: float  # of a token in one layer


class Decoding(NamedTuple):
    """What a step of so many decoding sequences takes, but for reading their contexts.

    Attention's FLOP and bytes follow from the keys that are read, summed over the layers.
    """

    rest: StepParts
    layers: int  # of full attention
    window_layers: int
    window_tokens: int  # the most keys that a layer with a window reads
    shards: int
    pair_flop: float
    key_bytes: float
    state_bytes: float
    flop_s: float
    bytes_s: float


class _LinearParts(NamedTuple):
    compute_s: float
    bytes: float
    matrix_s: float


@dataclass(frozen=True, slots=True)
class _ExpertParts:
    """Times on the busiest GPU, bytes on the mean one."""

    compute_s: float
    memory_s: float
    bytes: float
    matrix_s: float
    balance: float


@dataclass(frozen=True, slots=True)
class StepModel:
    """Turns a batch into the parts of its step.

    `data_parallel_size` copies of the attention layers step together; with `expert_parallel` each
    GPU of all copies holds whole experts, without it a slice of each. All but attention depends on
    how many sequences decode, not on their contexts, and is worked out once for each number.
    """

    model: ModelShape
    gpu: Gpu
    tensor_parallel_size: int = 1
    kv_bytes: int = 2  # per element of the cache
    eager: bool = False
    expert_parallel: bool = False
    data_parallel_size: int = 1
    async_scheduling: bool = False
    graph_bound: int | None = None  # of CUDA graphs, in tokens, where lower than the GPU's
    sorts_logits: bool = False  # requests with top-k or top-p; those of the tuner have neither
    _decoding: dict[int, Decoding] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _fixed: _Fixed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out what is the same for all batches."""
        model, gpu = self.model, self.gpu
        dense = model.dense_parts()
        fixed = _Fixed(
            flop_s=self._flop_s(False),
            memory_bytes_s=gpu.memory_tb_s * 1e12 * gpu.memory_efficiency,
            attention_bytes_s=gpu.memory_tb_s * 1e12 * gpu.attention_efficiency,
            dense_token_s=sum((2.0 * n / self._flop_s(w.fp8) for n, w in dense), start=0.0),
            dense_matrix_s=sum((2.0 * n * self._flop_energy_s(w.fp8) for n, w in dense), start=0.0),
            dense_bytes=sum((count * weights.bytes for count, weights in dense), start=0.0),
            unpack_s=model.packed_parameters / (gpu.unpack_tera_s * 1e12),
            width=4 * model.hidden + 3 * model.intermediate * model.active_experts,
            kernels_s=_kernels_s(model, gpu),
            prefill_s=_prefill_s(model, gpu),
            largest_graph=min(gpu.graph_tokens, self.graph_bound or gpu.graph_tokens),
            key_bytes=model.kv_layer_bytes(self.tensor_parallel_size, self.kv_bytes),
        )
        object.__setattr__(self, "_fixed", fixed)

    def decoding(self, sequences: int) -> Decoding:
        """Return what a step takes in which so many sequences decode, and nothing else."""
        known = self._decoding.get(sequences)
        if known is None:
            known = self._decoding[sequences] = self._decoding_of(sequences)
        return known

    def _decoding_of(self, sequences: int) -> Decoding:
        """Work out what does not depend on the contexts; without attention."""
        attention = self.model.attention
        batch = Batch(
            decode_sequences=sequences,
            sampled_sequences=sequences,
            scheduled_sequences=sequences,
        )
        return Decoding(
            rest=self._without_attention(batch),
            layers=attention.layers - attention.window_layers,
            window_layers=attention.window_layers,
            window_tokens=sequences * attention.window_tokens,
            shards=self.tensor_parallel_size,
            pair_flop=attention.pair_flop,
            key_bytes=self._fixed.key_bytes,
            state_bytes=self._state_bytes(sequences),
            flop_s=self._fixed.flop_s,
            bytes_s=self._fixed.attention_bytes_s,
        )

    def parts(self, batch: Batch) -> StepParts:
        """Return the times of one step's parts."""
        rest = self._without_attention(batch)
        flop, read = self._attention(batch)
        return rest._replace(
            attention_compute_s=flop / self._fixed.flop_s,
            attention_memory_s=read / self._fixed.attention_bytes_s,
            memory_bytes=rest.memory_bytes + read,
            matrix_s=rest.matrix_s + flop / self._fixed.flop_s,
        )

    def _without_attention(self, batch: Batch) -> StepParts:
        gpu, fixed = self.gpu, self._fixed
        real = batch.decode_sequences + batch.prefill_tokens
        tokens = real if self.eager else graph_tokens(real, self._fixed.largest_graph)
        linear = self._linear(tokens, batch.sampled_sequences)
        experts = self._experts(tokens)
        return StepParts(
            linear_compute_s=linear.compute_s,
            linear_memory_s=linear.bytes / fixed.memory_bytes_s,
            expert_compute_s=experts.compute_s,
            expert_memory_s=experts.memory_s,
            attention_compute_s=0.0,
            attention_memory_s=0.0,
            kernel_s=fixed.kernels_s
            + batch.scheduled_sequences * gpu.sequence_us * 1e-6
            + self._communication_s(tokens),
            prefill_s=fixed.prefill_s if batch.prefill_tokens else 0.0,
            host_s=self._host_s(batch.scheduled_sequences, tokens),
            host_overlap=1.0 if self.async_scheduling else gpu.host_overlap,
            memory_bytes=linear.bytes + experts.bytes,
            matrix_s=linear.matrix_s + experts.matrix_s,
            expert_balance=experts.balance,
        )

    def _flop_s(self, fp8: bool) -> float:
        gpu = self.gpu
        peak = gpu.fp8_tflops if fp8 and gpu.fp8_tflops is not None else gpu.bf16_tflops
        return peak * 1e12 * gpu.matrix_efficiency

    def _flop_energy_s(self, fp8: bool) -> float:
        """Time of one FLOP, as far as its energy goes."""
        return (self.gpu.eight_bit_energy if fp8 else 1.0) / self._flop_s(fp8)

    def _linear(self, tokens: int, sampled: int) -> _LinearParts:
        """Return what every token passes through, and the output matrix."""
        model, shards, fixed = self.model, self.tensor_parallel_size, self._fixed
        read = fixed.dense_bytes
        compute_s = tokens * fixed.dense_token_s
        matrix_s = tokens * fixed.dense_matrix_s
        if sampled:
            output_s = 2.0 * model.embedding_parameters * sampled / fixed.flop_s
            compute_s, matrix_s = compute_s + output_s, matrix_s + output_s
            read += model.head_weights.bytes * model.embedding_parameters
        activations = tokens * model.layers * fixed.width * _ACTIVATION_BYTES
        each = self.gpu.logit_bytes + (self.gpu.sorting_bytes if self.sorts_logits else 0.0)
        logits = each * sampled * model.vocabulary
        return _LinearParts(
            (compute_s + fixed.unpack_s) / shards,
            (read + activations) / shards + logits,
            (matrix_s + fixed.unpack_s) / shards,
        )

    def _experts(self, tokens: int) -> _ExpertParts:
        """Return what the routed experts take."""
        moe = self.model.moe
        if moe is None:
            return _ExpertParts(0.0, 0.0, 0.0, 0.0, 1.0)
        gpu, gpus = self.gpu, self.tensor_parallel_size * self.data_parallel_size
        groups, slices = (gpus, 1) if self.expert_parallel else (1, gpus)
        everywhere = tokens * self.data_parallel_size
        held = moe.count / groups
        mean = (
            held
            if moe.reads_all
            else touched_experts(moe, everywhere, 1, gpu.routing_spread) / groups
        )
        touched = (
            held if moe.reads_all else touched_experts(moe, everywhere, groups, gpu.routing_spread)
        )
        busiest = 1.0 + gpu.expert_skew * math.log2(groups)
        flop_s = self._flop_s(moe.weights.fp8)
        unquantized = moe.weights.bytes == UNQUANTIZED_BYTES
        wide = everywhere > held and unquantized  # vLLM takes another tile size
        tile = BLOCK_TILE if moe.reads_all else WIDE_TILE if wide else EXPERT_TILE
        each_flop = 2.0 * moe.layers * moe.parameters / slices
        rows = _tiled(everywhere * moe.active / groups * busiest, touched, tile)
        mean_rows = everywhere * moe.active / groups
        padding = _tiled(mean_rows, mean, tile) - mean_rows
        switching = mean_rows + gpu.padding_energy * padding
        each = moe.layers * moe.parameters * moe.weights.bytes / slices
        memory_s = each * touched / (gpu.memory_tb_s * 1e12 * gpu.expert_efficiency)
        if wide:
            memory_s /= gpu.expert_tile_share
        packed = moe.layers * moe.parameters / slices if moe.weights.bytes < 1.0 else 0.0
        unpack_s = packed / (gpu.unpack_tera_s * 1e12)
        return _ExpertParts(
            compute_s=each_flop * rows / (flop_s * gpu.expert_matrix_share) + unpack_s * touched,
            memory_s=memory_s,
            bytes=each * mean,
            matrix_s=each_flop * switching * self._flop_energy_s(moe.weights.fp8) + unpack_s * mean,
            balance=mean / touched,
        )

    def _attention(self, batch: Batch) -> tuple[float, float]:
        """FLOP and bytes of reading the cache and the recurrent states."""
        model, shards = self.model, self.tensor_parallel_size
        attention = model.attention
        keys, pairs = _seen(batch, attention)
        flop = attention.pair_flop * pairs / shards
        read = keys * self._fixed.key_bytes
        return flop, read + self._state_bytes(batch.scheduled_sequences)

    def _state_bytes(self, sequences: int) -> float:
        return 2.0 * self.model.state_bytes * sequences / self.tensor_parallel_size

    def _host_s(self, sequences: int, tokens: int) -> float:
        gpu = self.gpu
        base = gpu.host_step_us * 1e-6 + sequences * gpu.host_sequence_us * 1e-6
        if self.eager:
            return base + self.model.layers * gpu.eager_layer_us * 1e-6
        if tokens > self._fixed.largest_graph:
            base += self.model.layers * _KERNELS_PER_LAYER * _KERNEL_LAUNCH_S
        return base

    def _communication_s(self, tokens: int) -> float:
        shards = self.tensor_parallel_size
        if self.model.moe is not None:
            shards *= self.data_parallel_size  # the copies exchange tokens around the experts
        if shards == 1:
            return 0.0
        gpu = self.gpu
        payload = tokens * self.model.hidden * _ACTIVATION_BYTES * 2 * (shards - 1) / shards
        latency_s = gpu.all_reduce_us * 1e-6 * math.pow(shards / 2, gpu.all_reduce_growth)
        transfer_s = payload / (gpu.link_gb_s * 1e9 * gpu.link_efficiency)
        return 2 * self.model.layers * (latency_s + transfer_s)


def _kernels_s(model: ModelShape, gpu: Gpu) -> float:
    """Time of kernels too short to be limited by compute or memory."""
    quantized = model.quantized_inputs
    mixtures = 0 if model.moe is None else model.moe.layers
    microseconds = (
        model.layers * gpu.layer_us + mixtures * gpu.expert_layer_us + quantized * gpu.quantize_us
    )
    return microseconds * 1e-6


def _prefill_s(model: ModelShape, gpu: Gpu) -> float:
    """Time that a prefill adds, whatever its length."""
    mixtures = 0 if model.moe is None else model.moe.layers
    states = 0 if model.recurrent is None else model.recurrent.layers
    attention = model.attention
    each_us = gpu.prefill_latent_us if attention.latent else gpu.prefill_layer_us
    microseconds = (
        attention.layers * each_us
        + mixtures * gpu.prefill_expert_us
        + states * gpu.prefill_state_us
    )
    return microseconds * 1e-6


def graph_bound(max_num_seqs: int, decode_tokens: int = 1) -> int:
    """Tokens of the largest CUDA graph that so many sequences need, by vLLM's rule."""
    return 2 * max_num_seqs * decode_tokens


def graph_tokens(tokens: int, largest: int) -> int:
    """Tokens of the captured CUDA graph that a step runs in: 1, 2, 4, then multiples of 8."""
    if tokens <= 2 or tokens > largest:
        return tokens
    return 4 if tokens <= 4 else -(-tokens // 8) * 8


def touched_experts(
    moe: ExpertLayers, tokens: int, groups: int, spread_share: float = 1.0
) -> float:
    """Experts of one layer that a batch activates on the busiest of `groups` equal groups.

    With even routing an expert stays idle with probability (1-k/E)^n; tokens that are alike count
    as fewer, by `spread_share`. The largest of a few sums
    lies about half a standard deviation above the mean for each doubling of their number.
    """
    each = moe.count / groups
    alike = 1.0 + (tokens - 1.0) * spread_share
    touched = 1.0 - math.pow(1.0 - moe.active / moe.count, alike)
    spread = math.sqrt(each * touched * (1.0 - touched))
    return min(each * touched + 0.5 * math.log2(groups) * spread, each)


def _tiled(rows: float, experts: float, tile: int) -> float:
    """Return the rows that are computed for so many experts, padding included."""
    return max(experts * tile, rows + experts * tile / 2)


def _seen(batch: Batch, attention: AttentionLayers) -> tuple[float, float]:
    """Keys read and query-key pairs, summed over the layers; a window bounds both.

    The sequences of a batch are taken to have its mean context.
    """
    full = attention.layers - attention.window_layers
    keys = float(batch.decode_context_tokens + batch.prefill_context_tokens)
    pairs = batch.decode_context_tokens + batch.prefill_pairs
    if not attention.window_layers:
        return full * keys, full * pairs
    window = attention.window_tokens
    decoded = min(batch.decode_context_tokens, batch.decode_sequences * window)
    prefilling = batch.scheduled_sequences - batch.decode_sequences
    filled = min(batch.prefill_context_tokens, batch.prefill_tokens + prefilling * window)
    windowed_pairs = decoded + min(batch.prefill_pairs, float(batch.prefill_tokens * window))
    windows = attention.window_layers
    return full * keys + windows * (decoded + filled), full * pairs + windows * windowed_pairs
