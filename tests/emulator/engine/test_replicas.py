import math
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.configuration import Configuration
from tuner.emulator.engine.engine import Engine
from tuner.emulator.engine.replicas import Replicas
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.engine.step import Batch, StepModel
from tuner.emulator.launch_rules import resolve
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.virtual import replicas_for, simulate
from tuner.records import Load, Request

H100 = load_gpu("H100-SXM")
LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct")


def started(copies: int, **flags: int) -> Replicas:
    configuration = Configuration(flags={"data_parallel_size": copies, **flags})
    return replicas_for(LLAMA, H100, configuration, seed=0, noise=False)


def finish(front: Replicas) -> list[Sequence]:
    finished: list[Sequence] = []
    while front.running or front.waiting:
        finished += front.advance(math.inf)
    return finished


requests = st.lists(
    st.tuples(st.integers(1, 3000), st.integers(1, 60), st.floats(0, 0.3)), min_size=1, max_size=20
)


@settings(max_examples=25)
@given(requests, st.sampled_from([1, 2, 3, 8]), st.sampled_from([1, 4, 64]))
def test_work_is_conserved_and_no_block_leaks(
    load: list[tuple[int, int, float]], copies: int, max_num_seqs: int
) -> None:
    front, finished, times = started(copies, max_num_seqs=max_num_seqs), [], []
    at_s = 0.0
    for number, (prompt, output, pause_s) in enumerate(load):
        at_s += pause_s
        while front.clock_s < at_s:
            finished += front.advance(at_s)
            times.append(front.clock_s)
        front.submit(Sequence(number, prompt, output))
    finished += finish(front)
    assert sorted(s.request_id for s in finished) == list(range(len(load)))
    assert front.generation_tokens == sum(output for _, output, _ in load)
    assert times == sorted(times)
    for engine in front.engines:
        engine.reset_prefix_cache()
        assert engine.free_blocks == engine.launch.kv_blocks
    assert front.energy_j == pytest.approx(sum(engine.energy_j for engine in front.engines))


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(1, 40))
def test_requests_are_spread_evenly(copies: int, count: int) -> None:
    front = started(copies)
    homes = [front.submit(Sequence(number, 100, 20)) for number in range(count)]
    each = [homes.count(engine) for engine in front.engines]
    assert max(each) - min(each) <= 1


def test_two_copies_do_twice_the_work_of_one(
    requests_of: Callable[[int, int], Iterator[Request]], counting_watch: Callable[..., object]
) -> None:
    runs = [
        simulate(
            LLAMA,
            H100,
            Configuration(flags={"data_parallel_size": copies}),
            requests_of(200, 100),
            Load(concurrency=16 * copies),
            counting_watch(16 * copies, 48 * copies),  # type: ignore[arg-type]
            seed=0,
            noise=False,
        )
        for copies in (1, 2)
    ]
    one, two = ((r.window_end_s - r.window_start_s, r.power.power_w.max()) for r in runs)
    assert two[0] == pytest.approx(one[0], rel=0.05)
    assert two[1] == pytest.approx(2 * one[1], rel=0.05)


def test_a_copy_that_has_nothing_to_do_idles(h100: Gpu) -> None:
    front = started(2)
    front.submit(Sequence(0, 100, 50))
    finish(front)
    front.close()
    busy, idle = front.engines
    assert idle.clock_s == pytest.approx(busy.clock_s)
    assert idle.energy_j == pytest.approx(h100.loaded_idle_w * idle.clock_s)


def test_dense_copies_do_not_communicate_and_copies_around_experts_do(h100: Gpu) -> None:
    batch = Batch(8, 800, sampled_sequences=8, scheduled_sequences=8)
    for name, talks in (
        ("meta-llama/Llama-3.1-8B-Instruct", False),
        ("Qwen/Qwen3-30B-A3B", True),
    ):
        model = load_model(name)
        alone, copies = (
            StepModel(model, h100, expert_parallel=True, data_parallel_size=n).parts(batch)
            for n in (1, 2)
        )
        assert (copies.kernel_s > alone.kernel_s) is talks


def test_copies_share_the_memory_of_the_experts_only(h100: Gpu, llama: ModelShape) -> None:
    def blocks(model: ModelShape, copies: int) -> int:
        return resolve(model, h100, {"data_parallel_size": copies}).kv_blocks

    moe = load_model("Qwen/Qwen3-30B-A3B")
    assert blocks(moe, 2) > 1.5 * blocks(moe, 1)
    assert blocks(llama, 2) == blocks(llama, 1)


def test_more_gpus_than_the_host_has_are_refused(h100: Gpu, llama: ModelShape) -> None:
    assert resolve(llama, h100, {"data_parallel_size": 4, "tensor_parallel_size": 2}).gpus == 8
    with pytest.raises(LaunchRefusedError, match=r"World size \(16\) is larger"):
        resolve(llama, h100, {"data_parallel_size": 4, "tensor_parallel_size": 4})


@settings(max_examples=25, deadline=None)
@given(requests, st.sampled_from([2, 3, 8]), st.sampled_from([300, 700]), st.booleans())
def test_steps_known_ahead_equal_steps_made_when_their_time_comes(
    load: list[tuple[int, int, float]], copies: int, limit_w: int, noise: bool
) -> None:
    """To the last digit, also where a power limit binds and every step has its own jitter."""
    logs = []
    for is_known_ahead in (True, False):
        configuration = Configuration(
            flags={"data_parallel_size": copies}, device={"power_limit_w": limit_w}
        )
        front = replicas_for(LLAMA, H100, configuration, seed=5, noise=noise)
        with pytest.MonkeyPatch.context() as patch:
            if not is_known_ahead:
                patch.setattr(Engine, "stretch_ahead", lambda self: None)
            at_s = 0.0
            for number, (prompt, output, pause_s) in enumerate(load):
                at_s += pause_s
                while front.clock_s < at_s:
                    front.advance(at_s)
                front.submit(Sequence(number, prompt, 4 * output))
            finish(front)
        found = [engine.log for engine in front.engines if engine.log is not None]
        logs.append([(log.ends_s.tolist(), log.energies_j.tolist()) for log in found])
    assert logs[0] == logs[1]
