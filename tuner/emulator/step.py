"""Roofline time of one engine step on each GPU of a tensor-parallel group.

Each part of a step has a compute time, which grows as the SM clock falls, and a memory time, which
does not; the longer one counts. Host time depends on neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuner.emulator.hardware import Gpu
from tuner.emulator.model import ModelShape

_ALL_REDUCE_S = 12e-6
_KERNEL_LAUNCH_S = 6e-6
_KERNELS_PER_LAYER = 12
_ACTIVATION_BYTES = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step works on, summed over its sequences."""

    decode_sequences: int = 0
    decode_context_tokens: int = 0  # keys read by the decoding sequences
    prefill_tokens: int = 0
    prefill_pairs: float = 0.0  # query-key pairs of the prefills
    prefill_context_tokens: int = 0  # keys read by the prefills
    sampled_sequences: int = 0  # sequences that get a token
    scheduled_sequences: int = 0


@dataclass(frozen=True, slots=True)
class StepParts:
    """Times of one step's parts at the highest clock, and the bytes it moves, on one GPU."""

    linear_compute_s: float
    linear_memory_s: float
    attention_compute_s: float
    attention_memory_s: float
    fixed_s: float  # host and communication
    memory_bytes: float


@dataclass(frozen=True, slots=True)
class StepModel:
    """Turns a batch into the parts of its step."""

    model: ModelShape
    gpu: Gpu
    tensor_parallel_size: int = 1
    kv_bytes: int = 2  # per element of the cache
    eager: bool = False

    def parts(self, batch: Batch) -> StepParts:
        """Return the times of one step's parts."""
        tokens = batch.decode_sequences + batch.prefill_tokens
        linear_flop, linear_bytes = self._linear(tokens, batch.sampled_sequences)
        attention_flop, attention_bytes = self._attention(batch)
        gpu = self.gpu
        flop_s = self._peak_tflops() * 1e12 * gpu.matrix_efficiency
        peak_bytes_s = gpu.memory_tb_s * 1e12
        return StepParts(
            linear_compute_s=linear_flop / flop_s,
            linear_memory_s=linear_bytes / (peak_bytes_s * gpu.memory_efficiency),
            attention_compute_s=attention_flop / (gpu.bf16_tflops * 1e12 * gpu.matrix_efficiency),
            attention_memory_s=attention_bytes / (peak_bytes_s * gpu.attention_efficiency),
            fixed_s=self._host_s(batch.scheduled_sequences) + self._communication_s(tokens),
            memory_bytes=linear_bytes + attention_bytes,
        )

    def _peak_tflops(self) -> float:
        if self.model.weight_bytes == 1.0 and self.gpu.fp8_tflops is not None:
            return self.gpu.fp8_tflops
        return self.gpu.bf16_tflops

    def _linear(self, tokens: int, sampled: int) -> tuple[float, float]:
        """FLOP and bytes of the projections, the MLPs and the output matrix."""
        model, shards = self.model, self.tensor_parallel_size
        active = model.attention_parameters + model.active_experts * model.expert_parameters
        flop = 2.0 * (model.layers * active * tokens + model.embedding_parameters * sampled)
        idle_share = (1.0 - model.active_experts / model.experts) ** tokens
        read = model.attention_parameters + model.expert_parameters * model.experts * (
            1.0 - idle_share
        )
        weights = model.layers * read * model.weight_bytes
        output = 2.0 * model.embedding_parameters if sampled else 0.0
        activations = tokens * model.layers * (4 * model.hidden + 3 * model.intermediate)
        activation_bytes = activations * model.active_experts * _ACTIVATION_BYTES
        return flop / shards, (weights + output + activation_bytes) / shards

    def _attention(self, batch: Batch) -> tuple[float, float]:
        """FLOP and bytes of reading the cache."""
        model = self.model
        pairs = batch.decode_context_tokens + batch.prefill_pairs
        flop = 4.0 * model.layers * model.heads * model.head_dim * pairs
        keys = batch.decode_context_tokens + batch.prefill_context_tokens
        key_bytes = model.kv_token_bytes(self.tensor_parallel_size, self.kv_bytes)
        return flop / self.tensor_parallel_size, keys * key_bytes

    def _host_s(self, sequences: int) -> float:
        base = self.gpu.host_step_us * 1e-6 + sequences * self.gpu.host_sequence_us * 1e-6
        if self.eager:
            base += self.model.layers * _KERNELS_PER_LAYER * _KERNEL_LAUNCH_S
        return base

    def _communication_s(self, tokens: int) -> float:
        shards = self.tensor_parallel_size
        if shards == 1:
            return 0.0
        payload = tokens * self.model.hidden * _ACTIVATION_BYTES * 2 * (shards - 1) / shards
        once = _ALL_REDUCE_S + payload / (self.gpu.link_gb_s * 1e9)
        return 2 * self.model.layers * once
