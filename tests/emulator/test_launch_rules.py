import pytest

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.configuration import Value
from tuner.emulator.cache_memory import BLOCK_TOKENS
from tuner.emulator.launch_rules import (
    LaunchRefusedError,
    check_flags,
    default_flags,
    request_refusal,
    resolve,
)
from tuner.errors import UsageError


@pytest.mark.parametrize(
    ("gpu", "tokens", "sequences"),
    [
        ("H100-SXM", 8192, 1024),
        ("RTX-PRO-6000", 8192, 1024),
        ("B200-SXM", 16384, 1024),
        ("A100-SXM-80G", 2048, 256),
        ("L40S", 2048, 256),
    ],
)
def test_defaults_are_vllms(gpu: str, tokens: int, sequences: int) -> None:
    flags = default_flags(load_gpu(gpu))
    assert (flags["max_num_batched_tokens"], flags["max_num_seqs"]) == (tokens, sequences)
    check_flags(flags)


def test_a_gb10_has_the_defaults_of_its_memory(h100: Gpu) -> None:
    """As in vLLM 0.32, which counts the memory that it shares with the host."""
    flags = default_flags(h100.model_copy(update={"name": "GB10", "memory_gib": 119.7}))
    assert (flags["max_num_batched_tokens"], flags["max_num_seqs"]) == (8192, 1024)


def test_unknown_flag_is_named_with_its_nearest() -> None:
    with pytest.raises(UsageError, match="unknown emulated flag 'max_num_seq'; did you mean"):
        check_flags(["max_num_seqs", "max_num_seq"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"gpu_memory_utilization": 0.15}, "No available memory for the cache blocks"),
        ({"gpu_memory_utilization": 0.32}, r"larger than the available KV cache memory"),
        ({"gpu_memory_utilization": 0.32}, r"estimated maximum model length is \d+"),
        ({"max_num_batched_tokens": 64, "max_num_seqs": 128}, r"greater than or equal to max_num"),
        ({"gpu_memory_utilization": 1.1}, "less than or equal to 1"),
        ({"gpu_memory_utilization": 0.0}, "greater than 0"),
        ({"max_num_seqs": 0}, "max_num_seqs: Input should be greater than or equal to 1"),
        ({"max_model_len": 200_000}, r"greater than the derived max_model_len"),
        ({"long_prefill_token_threshold": 200_000}, "cannot be greater than the max_model_len"),
        ({"long_prefill_token_threshold": -1}, "greater than or equal to 0"),
        ({"tensor_parallel_size": 3}, "must be divisible by tensor parallel size"),
        ({"tensor_parallel_size": 16}, "larger than the number of available GPUs"),
        (
            {"enable_chunked_prefill": False, "max_num_batched_tokens": 4096},
            "smaller than max_model_len",
        ),
    ],
)
def test_refusals_in_vllms_words(
    llama: ModelShape, h100: Gpu, flags: dict[str, Value], words: str
) -> None:
    with pytest.raises(LaunchRefusedError, match=words):
        resolve(llama, h100, flags)


@pytest.mark.parametrize(
    "flags",
    [
        {"max_num_seqs": "many"},
        {"max_num_seqs": 1.5},
        {"enforce_eager": 1},
        {"kv_cache_dtype": "x"},
    ],
)
def test_values_of_the_wrong_type(llama: ModelShape, h100: Gpu, flags: dict[str, Value]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(flags))}: found .* allowed"):
        resolve(llama, h100, flags)


def test_memory_for_the_cache(llama: ModelShape, h100: Gpu) -> None:
    tokens = resolve(llama, h100, {}).kv_blocks * BLOCK_TOKENS
    assert 380_000 < tokens < 460_000  # a real vLLM on an H100 has room for about 430,000
    less = resolve(llama, h100, {"gpu_memory_utilization": 0.6}).kv_blocks
    more = resolve(llama, h100, {"kv_cache_dtype": "fp8"}).kv_blocks
    split = resolve(llama, h100, {"tensor_parallel_size": 2}).kv_blocks
    assert less * BLOCK_TOKENS < tokens < 2 * tokens <= (more + 1) * BLOCK_TOKENS
    assert split * BLOCK_TOKENS > 2 * tokens
    larger_steps = resolve(llama, h100, {"max_num_batched_tokens": 65536}).kv_blocks
    assert larger_steps * BLOCK_TOKENS < tokens


def test_a_model_that_does_not_fit(h100: Gpu) -> None:
    with pytest.raises(LaunchRefusedError, match="No available memory"):
        resolve(load_model("meta-llama/Llama-3.1-70B-Instruct"), h100, {})


def test_defaults_adapt_as_vllms_do(llama: ModelShape, h100: Gpu) -> None:
    assert resolve(llama, h100, {"max_num_batched_tokens": 512}).max_num_seqs == 512
    whole = resolve(llama, h100, {"enable_chunked_prefill": False, "max_model_len": 20_000})
    assert whole.max_num_batched_tokens == 20_000


def test_too_long_a_request_is_refused_in_vllms_words() -> None:
    assert request_refusal(100, 28, 128) is None
    refusal = request_refusal(100, 29, 128)
    assert refusal is not None
    assert refusal.startswith("This model's maximum context length is 128 tokens.")


@pytest.mark.parametrize("context", [131_072, 100_000, None])
def test_windows_keep_little_of_a_long_request(h100: Gpu, context: int | None) -> None:
    """All layers of Gemma 3 27B in full would need 62 GiB, five sixths of them have a window."""
    gemma = load_model("google/gemma-3-27b-it")
    flags: dict[str, Value] = {} if context is None else {"max_model_len": context}
    launch = resolve(gemma, h100, flags)
    assert launch.kv_blocks * BLOCK_TOKENS >= launch.max_model_len
    with pytest.raises(LaunchRefusedError, match=r"model length is (\d+)") as refused:
        resolve(gemma, h100, {**flags, "gpu_memory_utilization": 0.72})
    longest = int(str(refused.value).partition("model length is ")[2].partition(".")[0])
    fits: dict[str, Value] = {"gpu_memory_utilization": 0.72, "max_model_len": longest}
    assert resolve(gemma, h100, fits).max_model_len == longest
    with pytest.raises(LaunchRefusedError):
        resolve(gemma, h100, {**fits, "max_model_len": longest + BLOCK_TOKENS})


def test_the_longest_context_is_what_the_cache_has_room_for() -> None:
    """vLLM's `--max-model-len auto`."""
    roomy, model = load_gpu("H100-SXM"), load_model("Qwen/Qwen3-8B")
    assert resolve(model, roomy, {"max_model_len": -1}).max_model_len == model.max_position
    scarce = {"max_model_len": -1, "gpu_memory_utilization": 0.25}
    launch = resolve(model, roomy, scarce)
    assert 0 < launch.max_model_len < model.max_position
    resolve(model, roomy, {**scarce, "max_model_len": launch.max_model_len})
    with pytest.raises(LaunchRefusedError, match="larger than the available KV cache memory"):
        resolve(model, roomy, {**scarce, "max_model_len": launch.max_model_len + 32})
