"""vLLM's start-up rules: defaults, memory for the cache, and refusals in its own words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.configuration import MODEL, Value
from tuner.emulator.cache_memory import cache_blocks, cache_bytes, longest_length
from tuner.emulator.quantization import FORMATS, in_format
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.speculation import FIELDS, ON_HOST, speculation_of
from tuner.errors import UsageError, unknown_name

_KV_BYTES: Mapping[str, int] = {
    "auto": 2,
    "bfloat16": 2,
    "float16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
EMULATED_FLAGS: Mapping[str, type] = {
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "max_model_len": int,
    "gpu_memory_utilization": float,
    "tensor_parallel_size": int,
    "data_parallel_size": int,
    "kv_cache_dtype": str,
    "quantization": str,
    "enable_chunked_prefill": bool,
    "enforce_eager": bool,
    "enable_expert_parallel": bool,
    "enable_prefix_caching": bool,
    "async_scheduling": bool,
    "long_prefill_token_threshold": int,
    **FIELDS,
}
_TEXTS: Mapping[str, tuple[str, ...]] = {
    "kv_cache_dtype": tuple(_KV_BYTES),
    "quantization": tuple(FORMATS),
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
        if name not in EMULATED_FLAGS and name != MODEL:
            raise UsageError(unknown_name("emulated flag", name, EMULATED_FLAGS))


def quantization_of(flags: Mapping[str, Value]) -> str | None:
    """Return the format that the flags put the weights in; None leaves the model's own."""
    found = flags.get("quantization")
    return None if found is None else str(found)


def served_model(model: ModelShape, flags: Mapping[str, Value]) -> ModelShape:
    """Return the checkpoint that the flags name, else `model`. Raises `UsageError`."""
    return load_model(str(flags[MODEL])) if MODEL in flags else model


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
    given = {name: _typed(name, value) for name, value in flags.items() if name != MODEL}
    model = in_format(served_model(model, flags), quantization_of(flags))
    values = {**default_flags(gpu), **given}
    max_model_len = int(values.get("max_model_len", model.max_position))
    is_longest = max_model_len == -1  # vLLM's auto: as long as the cache has room for
    max_model_len = model.max_position if is_longest else max_model_len
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
    kv_dtype = str(values["kv_cache_dtype"])
    kv_bytes = model.kv_bytes if kv_dtype == "auto" else _KV_BYTES[kv_dtype]
    cache = cache_bytes(model, gpu, utilization, shards, tokens, max_num_seqs, eager, copies)
    is_async = bool(values["async_scheduling"])
    if (speculation := speculation_of(model, flags)) is not None:
        is_async = is_async and speculation.method not in ON_HOST
        if speculation.draft is not None:
            cache -= speculation.draft.loaded_bytes / shards
    in_flight = tokens * (2 if is_async else 1)

    def request_bytes(length: int) -> float:
        return model.request_bytes(shards, kv_bytes, length, in_flight)

    if is_longest:
        max_model_len = longest_length(cache, max_model_len, request_bytes)
    token_bytes = model.kv_token_bytes(shards, kv_bytes)
    blocks = cache_blocks(cache, max_model_len, token_bytes, request_bytes)
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
        async_scheduling=is_async,
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
        str: value in _TEXTS[name] if name in _TEXTS else isinstance(value, str),
    }[expected]
    if not fits:
        allowed = (
            ", ".join(_TEXTS[name]) if name in _TEXTS else f"a value of type {expected.__name__}"
        )
        raise UsageError(f"{name}: found {value!r}; allowed: {allowed}")
    return value
