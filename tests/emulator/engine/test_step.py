from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.step import Batch, StepModel, graph_tokens, touched_experts
from tuner.emulator.launch_rules import resolve
from tuner.emulator.step_model import step_model

STEPS = StepModel(load_model("Qwen/Qwen3-8B"), load_gpu("H100-SXM"))


def decode(sequences: int, context: int) -> Batch:
    return Batch(
        decode_sequences=sequences,
        decode_context_tokens=sequences * context,
        sampled_sequences=sequences,
        scheduled_sequences=sequences,
    )


SHAPES = [
    "Qwen/Qwen3-8B",
    "google/gemma-3-12b-it",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
    "openai/gpt-oss-120b",
    "deepseek-ai/DeepSeek-V3",
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2",
]
MODELS = [
    StepModel(load_model(name), load_gpu("H100-SXM"), gpus, expert_parallel=split)
    for name in SHAPES
    for gpus, split in ((1, False), (8, False), (8, True))
]


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(MODELS),
    st.integers(1, 700),
    st.integers(1, 8192),
    st.integers(0, 512),
    st.integers(0, 8192),
    st.integers(0, 4096),
)
def test_more_work_never_takes_less_time(
    steps: StepModel, n: int, context: int, more: int, longer: int, prefill: int
) -> None:
    less = tuple(steps.parts(decode(n, context)))[:-1]
    more_decodes = decode(n + more, context + longer)
    greater = tuple(
        steps.parts(
            more_decodes._replace(
                prefill_tokens=prefill,
                prefill_pairs=prefill**2 / 2,
                prefill_context_tokens=prefill,
            )
        )
    )[:-1]
    assert all(a <= b * (1 + 1e-9) for a, b in zip(less, greater, strict=True))


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
    one = StepModel(llama, h100).parts(decode(1, 1000))
    two = StepModel(llama, h100, tensor_parallel_size=2).parts(decode(1, 1000))
    assert two.linear_memory_s == pytest.approx(one.linear_memory_s / 2, rel=0.01)
    assert two.attention_memory_s == pytest.approx(one.attention_memory_s / 2)
    assert two.kernel_s > one.kernel_s


def test_eager_mode_costs_host_time(llama: ModelShape, h100: Gpu) -> None:
    graphs = StepModel(llama, h100).parts(decode(8, 100))
    eager = StepModel(llama, h100, eager=True).parts(decode(8, 100))
    assert eager.host_s > graphs.host_s


def test_asynchronous_scheduling_hides_the_host_behind_the_gpu(
    llama: ModelShape, h100: Gpu
) -> None:
    power = PowerModel.under(h100, {})
    waits, hides = (
        StepModel(llama, h100, async_scheduling=choice).parts(decode(64, 1000))
        for choice in (False, True)
    )
    busy_s = power.step(hides._replace(host_s=0.0)).duration_s
    assert busy_s > hides.host_s > 0
    assert power.step(hides).duration_s == pytest.approx(busy_s)
    assert power.step(waits).duration_s > busy_s + 0.3 * waits.host_s


def test_steps_in_cuda_graphs_compute_the_captured_size(llama: ModelShape, h100: Gpu) -> None:
    assert [graph_tokens(n, 512) for n in (1, 2, 3, 4, 5, 8, 9, 511, 512, 513)] == [
        *(1, 2, 4, 4, 8, 8, 16, 512, 512, 513)
    ]
    steps = StepModel(llama, h100)
    eager = StepModel(llama, h100, eager=True)
    nine, sixteen = steps.parts(decode(9, 1)), steps.parts(decode(16, 1))
    # the sampled sequences are not padded
    assert nine.linear_compute_s == pytest.approx(sixteen.linear_compute_s, rel=0.05)
    assert eager.parts(decode(9, 1)).linear_compute_s < 0.6 * nine.linear_compute_s


def test_data_centre_blackwell_has_graphs_for_twice_as_many_tokens(llama: ModelShape) -> None:
    """vLLM 0.32; neither its 0.11 nor the workstation's Blackwell."""
    for name, engine, largest in (
        ("B200-SXM", None, 1024),
        ("B200-SXM", "vllm-0.11", 512),
        ("RTX-PRO-6000", None, 512),
        ("H200-SXM", None, 512),
    ):
        steps = StepModel(llama, load_gpu(name, engine))
        one, within, beyond = (
            steps.parts(Batch(prefill_tokens=n)).host_s for n in (1, largest, largest + 1)
        )
        assert one == within < beyond


def test_graphs_end_at_twice_the_sequences_and_what_each_verifies(llama: ModelShape) -> None:
    gpu = load_gpu("H200-SXM")
    flags = {"max_num_seqs": 16}
    drafts = {"speculative_config.method": "ngram", "speculative_config.num_speculative_tokens": 3}
    for chosen, largest in ((flags, 32), ({**flags, **drafts}, 128)):
        steps = step_model(llama, gpu, chosen, resolve(llama, gpu, chosen), None)
        within, beyond = (
            steps.parts(Batch(prefill_tokens=n)).host_s for n in (largest, largest + 1)
        )
        assert within < beyond


def test_experts_are_read_as_the_batch_activates_them(h100: Gpu) -> None:
    steps = StepModel(load_model("Qwen/Qwen3-30B-A3B"), h100)
    moe = steps.model.moe
    assert moe is not None
    assert touched_experts(moe, 1, 1) == pytest.approx(8.0)
    assert touched_experts(moe, 16, 1) == pytest.approx(128 * (1 - (1 - 8 / 128) ** 16))
    one, many = (steps.parts(decode(n, 1)).expert_memory_s for n in (1, 2048))
    assert many / one == pytest.approx(128 / 8 / h100.expert_tile_share, rel=0.01)


def test_the_busiest_gpu_holds_more_touched_experts_than_the_mean() -> None:
    moe = load_model("Qwen/Qwen3-30B-A3B").moe
    assert moe is not None
    for tokens in (1, 4, 16, 64):
        whole, eighth = touched_experts(moe, tokens, 1), touched_experts(moe, tokens, 8)
        assert whole / 8 <= eighth <= 16
    assert touched_experts(moe, 10_000, 8) == pytest.approx(16)


def test_gpus_that_wait_for_the_busiest_one_read_less(h100: Gpu) -> None:
    model = load_model("Qwen/Qwen3-235B-A22B")
    whole = StepModel(model, h100, 8, expert_parallel=True).parts(decode(8, 1))
    sliced = StepModel(model, h100, 8).parts(decode(8, 1))
    assert whole.expert_balance < 0.9 < sliced.expert_balance == 1.0
    assert whole.expert_memory_s > sliced.expert_memory_s
    assert whole.memory_bytes == pytest.approx(sliced.memory_bytes)


def test_data_parallel_copies_bring_their_tokens_to_the_experts(h100: Gpu) -> None:
    model = load_model("Qwen/Qwen3-30B-A3B")
    alone = StepModel(model, h100, 2, expert_parallel=True).parts(decode(512, 1))
    together = StepModel(model, h100, 2, expert_parallel=True, data_parallel_size=2).parts(
        decode(512, 1)
    )
    assert together.expert_memory_s == pytest.approx(alone.expert_memory_s / 2, rel=0.01)
    assert together.linear_memory_s == alone.linear_memory_s


def test_a_sliding_window_bounds_what_is_read(h100: Gpu) -> None:
    gemma = load_model("google/gemma-3-27b-it")  # 10 of 62 layers see everything
    parts = [StepModel(gemma, h100).parts(decode(1, n)) for n in (1024, 2048, 4096)]
    grown = [b.attention_memory_s - a.attention_memory_s for a, b in pairwise(parts)]
    assert grown[1] == pytest.approx(2 * grown[0])
    assert grown[0] == pytest.approx(parts[0].attention_memory_s * 10 / 62)


def test_a_recurrent_state_costs_the_same_at_any_context(h100: Gpu) -> None:
    nemotron = load_model("nvidia/NVIDIA-Nemotron-Nano-9B-v2")
    short, long = (StepModel(nemotron, h100).parts(decode(64, n)) for n in (1, 8192))
    keys = 64 * 8191 * 4 * 2 * 8 * 128 * 2  # 4 attention layers
    assert long.memory_bytes - short.memory_bytes == pytest.approx(keys)
    assert short.memory_bytes > nemotron.loaded_bytes * 0.9 + 2 * 64 * nemotron.state_bytes


def test_a_compressed_cache_is_held_whole_by_every_gpu(h100: Gpu) -> None:
    model = load_model("deepseek-ai/DeepSeek-V3")
    assert model.kv_token_bytes(1, 2) == model.kv_token_bytes(8, 2) == 61 * (512 + 64) * 2


def test_eight_bit_weights_are_multiplied_twice_as_fast_where_the_gpu_can() -> None:
    batch = Batch(prefill_tokens=8192, prefill_pairs=1.0)
    plain = load_model("Qwen/Qwen3-235B-A22B-Instruct-2507")
    eight = load_model("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8")
    for name, faster in (("H100-SXM", 2.0), ("A100-SXM-80G", 1.0)):
        gpu = load_gpu(name)
        times = [StepModel(model, gpu).parts(batch).expert_compute_s for model in (plain, eight)]
        assert times[0] / times[1] == pytest.approx(faster, rel=0.1)  # tiles differ
