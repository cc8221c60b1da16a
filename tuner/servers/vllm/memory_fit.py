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
_UNKNOWN = ("model", "quantization", "dtype", "cpu_offload_gb", "hf_overrides")


def fits(model: ModelShape, memory_gib: float, flags: Mapping[str, Value]) -> bool | None:
    """Say whether the weights and one request of `max_model_len` fit into each GPU.

    `memory_gib` is that of one GPU. True does not say that a server starts: what it needs beside
    them is not counted. None where the flags change what is needed, or name no length.
    """
    length = flags.get("max_model_len")
    if any(name in flags for name in _UNKNOWN) or not isinstance(length, int) or length < 1:
        return None
    shards = int(flags.get("tensor_parallel_size", 1))
    stages = int(flags.get("pipeline_parallel_size", 1))
    share = float(flags.get("gpu_memory_utilization", 1.0))
    kv_bytes = _KV_BYTES.get(flags.get("kv_cache_dtype", "auto"), 1)
    cache = length * model.kv_token_bytes(shards, kv_bytes) / stages
    weights = model.loaded_bytes / shards / stages
    return weights + cache <= share * memory_gib * _GIB
