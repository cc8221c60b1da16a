"""KV cache memory: how much vLLM has for it at start-up, and whether that is enough."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.emulator.refusal import LaunchRefusedError

BLOCK_TOKENS = 16
_GIB = 2**30
_CONTEXT_BYTES = 0.9 * _GIB  # CUDA context, NCCL and allocator slack of one process
_GRAPH_BYTES = 0.6 * _GIB  # captured CUDA graphs
_ADVICE = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."


def cache_bytes(
    model: ModelShape,
    gpu: Gpu,
    utilization: float,
    shards: int,
    tokens: int,
    max_num_seqs: int,
    eager: bool,
    copies: int = 1,
) -> float:
    """Memory left for the cache on one GPU; not above 0 if nothing is left.

    With data parallelism the GPUs of all copies share the experts.
    """
    widest = max(4 * model.hidden + 3 * model.intermediate * model.active_experts // shards, 1)
    activations = 2.0 * tokens * widest
    sampler = 2 * 4.0 * min(max_num_seqs, tokens) * model.vocabulary
    graphs = 0.0 if eager else _GRAPH_BYTES
    experts = model.expert_bytes
    weights = (model.loaded_bytes - experts) / shards + experts / (shards * copies)
    peak = weights + max(activations, sampler) + _CONTEXT_BYTES + graphs
    state = max_num_seqs * model.state_bytes / shards  # of recurrent layers, kept per sequence
    return gpu.memory_gib * _GIB * utilization - peak - state


def longest_length(available: float, most: int, request_bytes: Callable[[int], float]) -> int:
    """Return the longest context up to `most` whose cache fits, in whole blocks; at least one."""
    lengths = range(0, most + BLOCK_TOKENS, BLOCK_TOKENS)
    fitting = lengths[max(bisect_right(lengths, available, key=request_bytes) - 1, 1)]
    return min(most, fitting)


def cache_blocks(
    available: float, max_model_len: int, token_bytes: float, request_bytes: Callable[[int], float]
) -> int:
    """Return how many blocks of the cache there are.

    `request_bytes` is the cache of a request that long. Raises `LaunchRefusedError` where the
    longest one does not fit.
    """
    if available <= 0:
        raise LaunchRefusedError(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
            " when initializing the engine (this flag also controls CPU memory reservation on the"
            f" CPU backend, despite its name). {_ADVICE}"
        )
    lengths = range(0, max_model_len + BLOCK_TOKENS, BLOCK_TOKENS)
    needed = request_bytes(lengths[-1])
    if needed > available:
        longest = lengths[bisect_right(lengths, available, key=request_bytes) - 1]
        estimate = ""
        if longest > 0:
            estimate = (
                f"Based on the available memory, the estimated maximum model length is {longest}. "
            )
        raise LaunchRefusedError(
            f"To serve at least one request with the model's max seq len ({max_model_len}),"
            f" ({needed / _GIB:.2f} GiB KV cache is needed, which is larger than the available"
            f" KV cache memory ({available / _GIB:.2f} GiB). {estimate}"
            "Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU"
            f" backend) or decreasing `max_model_len` when initializing the engine. {_ADVICE}"
        )
    # windows of a long request take less than their share of a typical one
    return max(int(available / (token_bytes * BLOCK_TOKENS)), len(lengths) - 1)
