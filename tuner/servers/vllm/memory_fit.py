"""Memory of weights and KV cache: which vLLM cannot fit into a GPU, known without launching it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.configuration import Value

if TYPE_CHECKING:
    from tuner.catalog.model import ModelShape

_GIB = 2**30
_KV_BYTES: Mapping[Value, int] = {"auto": 2, "bfloat16": 2, "float16": 2}  # others: at least 1
# With one of these the weights or the cache take less than the model's own files say.
_UNKNOWN = ("model", "dtype", "cpu_offload_gb", "hf_overrides")


def fits(model: ModelShape, memory_gib: float, flags: Mapping[str, Value]) -> bool | None:
    """Say whether the weights and one request of `max_model_len` fit into each GPU.

    `memory_gib` is that of one GPU. True does not say that a server starts: what it needs beside
    them is not counted. None where the flags change what is needed. Without `max_model_len` vLLM
    takes the model's own; where it is -1, what fits, and a token has to.
    """
    length = flags.get("max_model_len", model.max_position)
    weights = _least_weights(model, flags.get("quantization"))
    if any(name in flags for name in _UNKNOWN) or not isinstance(length, int) or weights is None:
        return None
    shards = int(flags.get("tensor_parallel_size", 1))
    stages = int(flags.get("pipeline_parallel_size", 1))
    share = float(flags.get("gpu_memory_utilization", 1.0))
    kv_bytes = _KV_BYTES.get(flags.get("kv_cache_dtype", "auto"), 1)
    cache = model.request_bytes(shards, kv_bytes, max(length, 1), 0) / stages
    return weights / shards / stages + cache <= share * memory_gib * _GIB


def _least_weights(model: ModelShape, quantization: Value | None) -> float | None:
    """Return the least bytes of the weights; None for a format that is not known."""
    if quantization is None:
        return model.loaded_bytes
    # quantized while it loads; embeddings stay in 16 bits
    return min(model.loaded_bytes, float(model.parameters)) if quantization == "fp8" else None
