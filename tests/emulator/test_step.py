from dataclasses import astuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.emulator.hardware import Gpu, load_gpu
from tuner.emulator.model import ModelShape, load_model
from tuner.emulator.step import Batch, StepModel

STEPS = StepModel(load_model("Qwen/Qwen3-8B"), load_gpu("H100-SXM"))


def decode(sequences: int, context: int) -> Batch:
    return Batch(
        decode_sequences=sequences,
        decode_context_tokens=sequences * context,
        sampled_sequences=sequences,
        scheduled_sequences=sequences,
    )


@settings(deadline=None)
@given(st.integers(1, 512), st.integers(1, 8192), st.integers(0, 512), st.integers(0, 8192))
def test_more_work_never_takes_less_time(n: int, context: int, more: int, longer: int) -> None:
    less = astuple(STEPS.parts(decode(n, context)))
    greater = astuple(STEPS.parts(decode(n + more, context + longer)))
    assert all(a <= b for a, b in zip(less, greater, strict=True))


@settings(deadline=None)
@given(st.integers(1, 256), st.integers(1, 4096), st.integers(2, 200))
def test_decode_parts_are_linear_in_context(n: int, context: int, steps: int) -> None:
    first, middle, last = (
        STEPS.parts(decode(n, context + k * steps)).attention_memory_s for k in (0, 1, 2)
    )
    assert middle - first == pytest.approx(last - middle, rel=1e-6)


def test_one_sequence_reads_all_weights_once(llama: ModelShape, h100: Gpu) -> None:
    parts = StepModel(llama, h100).parts(decode(1, 1))
    read = llama.loaded_bytes - 2.0 * llama.embedding_parameters  # the input matrix is looked up
    assert parts.memory_bytes == pytest.approx(read, rel=0.01)


def test_a_long_prefill_is_bound_by_compute(llama: ModelShape, h100: Gpu) -> None:
    parts = StepModel(llama, h100).parts(Batch(prefill_tokens=8192, prefill_pairs=8192**2 / 2))
    assert parts.linear_compute_s > parts.linear_memory_s


def test_tensor_parallel_splits_work_and_pays_for_communication(
    llama: ModelShape, h100: Gpu
) -> None:
    one = StepModel(llama, h100).parts(decode(64, 1000))
    two = StepModel(llama, h100, tensor_parallel_size=2).parts(decode(64, 1000))
    assert two.linear_memory_s == pytest.approx(one.linear_memory_s / 2)
    assert two.attention_memory_s == pytest.approx(one.attention_memory_s / 2)
    assert two.fixed_s > one.fixed_s


def test_eager_mode_costs_host_time(llama: ModelShape, h100: Gpu) -> None:
    graphs = StepModel(llama, h100).parts(decode(8, 100))
    eager = StepModel(llama, h100, eager=True).parts(decode(8, 100))
    assert eager.fixed_s > graphs.fixed_s


def test_experts_are_read_as_the_batch_activates_them(h100: Gpu) -> None:
    steps = StepModel(load_model("Qwen/Qwen3-30B-A3B"), h100)
    one, many = (steps.parts(decode(n, 1)).memory_bytes for n in (1, 512))
    assert 5 * one < many <= steps.model.loaded_bytes * 1.1
