"""What vLLM decides at start-up: defaults, memory for the cache, and refusals in its own words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuner.configuration import Value
from tuner.emulator.hardware import Gpu
from tuner.emulator.model import ModelShape
from tuner.emulator.refusal import LaunchRefusedError
from tuner.errors import UsageError, unknown_name

BLOCK_TOKENS = 16
_GIB = 2**30
_CONTEXT_BYTES = 0.9 * _GIB  # CUDA context, NCCL and allocator slack of one process
_GRAPH_BYTES = 0.6 * _GIB  # captured CUDA graphs
_KV_BYTES: Mapping[str, int] = {
    "auto": 2,
    "bfloat16": 2,
    "float16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
_ADVICE = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."

EMULATED_FLAGS: Mapping[str, type] = {
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "max_model_len": int,
    "gpu_memory_utilization": float,
    "tensor_parallel_size": int,
    "data_parallel_size": int,
    "kv_cache_dtype": str,
    "enable_chunked_prefill": bool,
    "enforce_eager": bool,
    "enable_expert_parallel": bool,
    "enable_prefix_caching": bool,
    "async_scheduling": bool,
    "long_prefill_token_threshold": int,
}


@dataclass(frozen=True, slots=True)
class Launch:
    """A configuration that starts, with every default filled in."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    tensor_parallel_size: int
    chunked_prefill: bool
    eager: bool
    kv_bytes: int
    kv_blocks: int
    prefix_caching: bool = False
    async_scheduling: bool = False
    long_prefill_token_threshold: int = 0  # 0 for no limit
    gpu_memory_utilization: float | None = None
    expert_parallel: bool = False
    data_parallel_size: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of the whole server."""
        return self.tensor_parallel_size * self.data_parallel_size


def check_flags(names: Iterable[str]) -> None:
    """Raise `UsageError` for the first flag whose effect is not emulated."""
    for name in names:
        if name not in EMULATED_FLAGS:
            raise UsageError(unknown_name("emulated flag", name, EMULATED_FLAGS))


def default_flags(gpu: Gpu) -> Mapping[str, Value]:
    """Return the values that vLLM's OpenAI server takes by itself on this GPU."""
    if gpu.memory_gib >= 160:
        tokens, sequences = 16384, 1024
    elif gpu.memory_gib >= 70 and "a100" not in gpu.name.lower():
        tokens, sequences = 8192, 1024
    else:
        tokens, sequences = 2048, 256
    return {
        "max_num_batched_tokens": tokens,
        "max_num_seqs": sequences,
        "gpu_memory_utilization": 0.92,
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "kv_cache_dtype": "auto",
        "enable_chunked_prefill": True,
        "enforce_eager": False,
        "enable_expert_parallel": False,
        "enable_prefix_caching": True,
        "async_scheduling": True,
        "long_prefill_token_threshold": 0,
    }


def resolve(model: ModelShape, gpu: Gpu, flags: Mapping[str, Value]) -> Launch:
    """Fill in the defaults and decide whether the server starts.

    Raises `UsageError` for an unknown flag or a value of the wrong type, `LaunchRefusedError` for
    a configuration that vLLM refuses.
    """
    check_flags(flags)
    given = {name: _typed(name, value) for name, value in flags.items()}
    values = {**default_flags(gpu), **given}
    max_model_len = int(values.get("max_model_len", model.max_position))
    max_num_seqs = int(values["max_num_seqs"])
    tokens = int(values["max_num_batched_tokens"])
    chunked = bool(values["enable_chunked_prefill"])
    if "max_num_batched_tokens" not in given:
        tokens = tokens if chunked else max(tokens, max_model_len)
        tokens = min(tokens, max_num_seqs * max_model_len)
    if "max_num_seqs" not in given:
        max_num_seqs = min(max_num_seqs, tokens)
    utilization = float(values["gpu_memory_utilization"])
    shards, copies = int(values["tensor_parallel_size"]), int(values["data_parallel_size"])
    _check_positive("ModelConfig", max_model_len=max_model_len)
    _check_positive("ParallelConfig", tensor_parallel_size=shards, data_parallel_size=copies)
    _check_positive("SchedulerConfig", max_num_seqs=max_num_seqs, max_num_batched_tokens=tokens)
    if not 0.0 < utilization <= 1.0:
        bound = "greater than 0" if utilization <= 0 else "less than or equal to 1"
        raise LaunchRefusedError(
            f"Input should be {bound}", config="CacheConfig", field="gpu_memory_utilization"
        )
    _check_model_len(model, max_model_len)
    threshold = int(values["long_prefill_token_threshold"])
    _check_scheduler(tokens, max_num_seqs, max_model_len, chunked, threshold)
    _check_parallel(model, gpu, shards, copies)
    eager = bool(values["enforce_eager"])
    kv_bytes = _KV_BYTES[str(values["kv_cache_dtype"])]
    cache = cache_bytes(model, gpu, utilization, shards, tokens, max_num_seqs, eager, copies)
    blocks = _cache_blocks(model, shards, kv_bytes, cache, max_model_len)
    return Launch(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=tokens,
        max_model_len=max_model_len,
        tensor_parallel_size=shards,
        chunked_prefill=chunked,
        eager=eager,
        kv_bytes=kv_bytes,
        kv_blocks=blocks,
        prefix_caching=bool(values["enable_prefix_caching"]),
        async_scheduling=bool(values["async_scheduling"]),
        long_prefill_token_threshold=threshold,
        gpu_memory_utilization=utilization,
        expert_parallel=bool(values["enable_expert_parallel"]),
        data_parallel_size=copies,
    )


def request_refusal(prompt_tokens: int, output_tokens: int, max_model_len: int) -> str | None:
    """Return why the server answers 400 to a request, or None if it takes it."""
    if prompt_tokens + output_tokens <= max_model_len:
        return None
    return (
        f"This model's maximum context length is {max_model_len} tokens. However, you requested"
        f" {output_tokens} output tokens and your prompt contains {prompt_tokens} input tokens,"
        f" for a total of {prompt_tokens + output_tokens} tokens. Please reduce the length of"
        " the input prompt or the number of requested output tokens."
    )


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


def _cache_blocks(
    model: ModelShape, shards: int, kv_bytes: int, available: float, max_model_len: int
) -> int:
    if available <= 0:
        raise LaunchRefusedError(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
            " when initializing the engine (this flag also controls CPU memory reservation on the"
            f" CPU backend, despite its name). {_ADVICE}"
        )
    per_token = model.kv_token_bytes(shards, kv_bytes)
    blocks = int(available / (per_token * BLOCK_TOKENS))
    needed_blocks = -(-max_model_len // BLOCK_TOKENS)
    if needed_blocks > blocks:
        needed = needed_blocks * BLOCK_TOKENS * per_token
        estimate = ""
        if blocks > 0:
            estimate = (
                "Based on the available memory, the estimated maximum model length is"
                f" {blocks * BLOCK_TOKENS}. "
            )
        raise LaunchRefusedError(
            f"To serve at least one request with the model's max seq len ({max_model_len}),"
            f" ({needed / _GIB:.2f} GiB KV cache is needed, which is larger than the available"
            f" KV cache memory ({available / _GIB:.2f} GiB). {estimate}"
            "Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU"
            f" backend) or decreasing `max_model_len` when initializing the engine. {_ADVICE}"
        )
    return blocks


def _check_positive(config: str, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise LaunchRefusedError(
                "Input should be greater than or equal to 1", config=config, field=name
            )


def _check_model_len(model: ModelShape, max_model_len: int) -> None:
    if max_model_len > model.max_position:
        raise LaunchRefusedError(
            f"User-specified max_model_len ({max_model_len}) is greater than the derived"
            f" max_model_len (max_position_embeddings={model.max_position} or"
            " model_max_length=None in model's config.json).",
            config="ModelConfig",
        )


def _check_scheduler(
    tokens: int, max_num_seqs: int, max_model_len: int, chunked: bool, threshold: int
) -> None:
    if tokens < max_model_len and not chunked:
        raise LaunchRefusedError(
            f"max_num_batched_tokens ({tokens}) is smaller than max_model_len ({max_model_len})."
            " This effectively limits the maximum sequence length to max_num_batched_tokens and"
            " makes vLLM reject longer sequences. Please increase max_num_batched_tokens or"
            " decrease max_model_len.",
            config="SchedulerConfig",
        )
    if tokens < max_num_seqs:
        raise LaunchRefusedError(
            f"max_num_batched_tokens ({tokens}) must be greater than or equal to max_num_seqs"
            f" ({max_num_seqs}).",
            config="SchedulerConfig",
        )
    if threshold < 0:
        raise LaunchRefusedError(
            "Input should be greater than or equal to 0",
            config="SchedulerConfig",
            field="long_prefill_token_threshold",
        )
    if threshold > max_model_len:
        raise LaunchRefusedError(
            f"long_prefill_token_threshold ({threshold}) cannot be greater than the max_model_len"
            f" ({max_model_len}).",
            config="SchedulerConfig",
        )


def _check_parallel(model: ModelShape, gpu: Gpu, shards: int, copies: int) -> None:
    if model.heads % shards != 0:
        raise LaunchRefusedError(
            f"Total number of attention heads ({model.heads}) must be divisible by tensor"
            f" parallel size ({shards}).",
            config="VllmConfig",
        )
    if shards * copies > gpu.max_gpus:
        raise LaunchRefusedError(
            f"World size ({shards * copies}) is larger than the number of available GPUs"
            f" ({gpu.max_gpus}) in this node.",
            config="ParallelConfig",
        )


def _typed(name: str, value: Value) -> Value:
    expected = EMULATED_FLAGS[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        bool: isinstance(value, bool),
        int: number and float(value) == int(value),
        float: number,
        str: value in _KV_BYTES,
    }[expected]
    if not fits:
        allowed = (
            ", ".join(_KV_BYTES) if expected is str else f"a value of type {expected.__name__}"
        )
        raise UsageError(f"{name}: found {value!r}; allowed: {allowed}")
    return value
