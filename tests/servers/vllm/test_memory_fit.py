"""Weights and cache against a GPU's memory, beside what the emulator says of the same flags."""

from __future__ import annotations

import itertools

import pytest

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Value
from tuner.emulator.launch_rules import resolve
from tuner.emulator.refusal import LaunchRefusedError
from tuner.servers.vllm.memory_fit import fits

QWEN, LLAMA = "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"max_model_len": 4096, "gpu_memory_utilization": 0.5}, False),  # 62 of 80 GB are weights
        ({"max_model_len": 4096, "gpu_memory_utilization": 0.9}, True),
        ({"max_model_len": 40960, "gpu_memory_utilization": 0.85}, False),  # 10 GiB of cache
        ({"max_model_len": 40960, "kv_cache_dtype": "fp8"}, True),
        ({"max_model_len": 40960, "gpu_memory_utilization": 0.5, "tensor_parallel_size": 2}, True),
        ({"gpu_memory_utilization": 0.5}, False),
        ({"gpu_memory_utilization": 0.85}, False),  # its own 40,960 tokens
        ({"gpu_memory_utilization": 0.85, "max_model_len": -1}, True),
        ({"max_model_len": 4096, "gpu_memory_utilization": 0.5, "quantization": "fp8"}, True),
        ({"max_model_len": 4096, "gpu_memory_utilization": 0.35, "quantization": "fp8"}, False),
        ({"max_model_len": 4096, "gpu_memory_utilization": 0.35, "quantization": "awq"}, None),
    ],
)
def test_weights_and_one_request_have_to_fit(
    flags: dict[str, Value], expected: bool | None
) -> None:
    assert fits(load_model(QWEN), load_gpu("H100-SXM").memory_gib, flags) is expected


def test_nothing_that_starts_on_the_emulator_is_said_not_to_fit() -> None:
    gpu, refused = load_gpu("L40S"), 0
    models = [load_model(name) for name in (QWEN, LLAMA, "google/gemma-3-27b-it")]
    for model, share, length, kv_type, weights in itertools.product(
        models,
        (0.3, 0.4, 0.5, 0.92),
        (2048, 16384, 32768, None),
        ("auto", "fp8"),
        (None, "fp8"),
    ):
        flags: dict[str, Value] = {"gpu_memory_utilization": share, "kv_cache_dtype": kv_type}
        flags |= {} if length is None else {"max_model_len": length}
        flags |= {} if weights is None else {"quantization": weights}
        found = fits(model, gpu.memory_gib, flags)
        try:
            resolve(model, gpu, flags)
        except LaunchRefusedError:
            refused += found is False
        else:
            assert found is True, flags
    assert refused > 5  # and most of what is refused is known
