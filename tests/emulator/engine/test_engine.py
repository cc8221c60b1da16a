import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.emulator.engine.engine import Engine, EngineStalledError
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.engine.step import StepModel
from tuner.emulator.launch_rules import Launch

GPU = load_gpu("H100-SXM")
MODEL = load_model("meta-llama/Llama-3.1-8B-Instruct")
LAUNCH = Launch(
    max_num_seqs=8,
    max_num_batched_tokens=64,
    max_model_len=512,
    tensor_parallel_size=1,
    chunked_prefill=True,
    eager=False,
    kv_bytes=2,
    kv_blocks=1000,
)
PROMPT = np.arange(300, dtype=np.int32)  # each prompt is the beginning of the longer ones
shapes = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 200)), min_size=1, max_size=20)


def engine_of(launch: Launch = LAUNCH, *, jitter: float = 0.0, clock_mhz: int = 1200) -> Engine:
    """At 1200 MHz no step reaches the power limit, so every step runs at one clock."""
    power = PowerModel.under(GPU, {"sm_clock_mhz": clock_mhz})
    return Engine(launch, StepModel(MODEL, GPU), power, jitter=jitter, seed=3)


def run_all(engine: Engine, todo: list[tuple[int, int]], max_steps: int | None) -> list[Sequence]:
    sequences = [
        Sequence(i, prompt, output, PROMPT[:prompt]) for i, (prompt, output) in enumerate(todo)
    ]
    for sequence in sequences:
        engine.submit(sequence)
    while engine.running or engine.waiting:
        engine.advance(math.inf, max_steps)
        assert 0 <= engine.free_blocks <= engine.launch.kv_blocks
        assert engine.running <= engine.launch.max_num_seqs
    return sequences


def token_times(engine: Engine, sequence: Sequence) -> list[float]:
    assert engine.log is not None
    ends = engine.log.ends_s
    return [float(ends[first + i]) for first, count in sequence.segments for i in range(count)]


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(32, 80), *[st.booleans()] * 3, st.sampled_from([0, 24]))
def test_work_is_conserved_and_no_block_leaks(
    todo: list[tuple[int, int]],
    blocks: int,
    chunked: bool,
    prefix_caching: bool,
    async_scheduling: bool,
    threshold: int,
) -> None:
    launch = replace(
        LAUNCH,
        kv_blocks=blocks,
        chunked_prefill=chunked,
        max_num_batched_tokens=64 if chunked else 512,
        prefix_caching=prefix_caching,
        async_scheduling=async_scheduling,
        long_prefill_token_threshold=threshold,
    )
    engine = engine_of(launch)
    sequences = run_all(engine, todo, None)
    assert engine.reset_prefix_cache()
    assert engine.free_blocks == blocks
    assert engine.counters.generation_tokens == sum(output for _, output in todo)
    assert engine.counters.prompt_tokens == sum(prompt for prompt, _ in todo)
    for sequence in sequences:
        times = token_times(engine, sequence)
        assert len(times) == sequence.output_tokens
        assert times == sorted(set(times))
        for (first, count), (resumed, _) in pairwise(sequence.segments):
            assert resumed > first + count  # preempted sequences sit out at least one step


# a preempted sequence that finds more of its own answer cached than it had made
@example([(11, 134), (114, 133), (11, 133), (147, 79)], 32, True, False)
# one that waits loses what it had found, and is then admitted by way of an answer being made
@example([(1, 71), (1, 90), (9, 90), (141, 88), (9, 80)], 32, True, False)
@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(32, 80), st.booleans(), st.booleans())
def test_steps_taken_together_equal_steps_taken_one_by_one(
    todo: list[tuple[int, int]], blocks: int, prefix_caching: bool, async_scheduling: bool
) -> None:
    launch = replace(
        LAUNCH,
        kv_blocks=blocks,
        prefix_caching=prefix_caching,
        async_scheduling=async_scheduling,
    )
    together, single = engine_of(launch), engine_of(launch)
    first, second = run_all(together, todo, None), run_all(single, todo, 1)
    assert together.step_count == single.step_count
    assert together.energy_j == pytest.approx(single.energy_j, rel=1e-9)
    assert together.counters == single.counters
    assert together.preemptions == single.preemptions
    assert together.prefix_cache == single.prefix_cache
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(token_times(together, a), token_times(single, b), rtol=1e-9)


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(0, 100), st.sampled_from([1, 2]), st.lists(st.integers(200, 700)))
def test_energy_is_the_integral_of_power(
    todo: list[tuple[int, int]], pause: int, shards: int, limits_w: list[int]
) -> None:
    """Step by step under limits that change: what was used is the power times the time."""
    engine = engine_of(replace(LAUNCH, tensor_parallel_size=shards), jitter=0.02)
    for i, (prompt, output) in enumerate(todo):
        engine.submit(Sequence(i, prompt, output, PROMPT[:prompt]))
    integral_j = 0.0
    while engine.running or engine.waiting:
        if limits_w:
            engine.set_power(PowerModel.under(GPU, {"power_limit_w": limits_w.pop()}))
        begun_s = engine.clock_s
        engine.advance(math.inf, 1)
        if engine.clock_s > begun_s:  # it settled the last step otherwise
            assert shards * GPU.idle_w < engine.power_w <= shards * GPU.default_limit_w
        integral_j += engine.power_w * (engine.clock_s - begun_s)
    assert engine.energy_j == pytest.approx(integral_j)
    engine.idle(engine.clock_s + pause)
    assert engine.energy_j == pytest.approx(integral_j + pause * engine.idle_w)
    assert engine.log is not None
    assert engine.log.energies_j[-1] == pytest.approx(engine.energy_j)
    assert np.all(np.diff(engine.log.energies_j) >= 0)


@settings(deadline=None, max_examples=25)
@given(shapes, st.tuples(st.integers(200, 700), st.integers(200, 700)), st.booleans())
def test_a_higher_limit_finishes_no_later_and_a_lower_clock_draws_no_more(
    todo: list[tuple[int, int]], limits_w: tuple[int, int], is_clock: bool
) -> None:
    """The whole run, not the step alone: nothing the scheduler does turns it round."""
    low, high = sorted(limits_w)
    knob, scale = ("sm_clock_mhz", 2) if is_clock else ("power_limit_w", 1)
    slow, fast = (
        Engine(LAUNCH, StepModel(MODEL, GPU), PowerModel.under(GPU, {knob: scale * value}))
        for value in (low, high)
    )
    for engine in (slow, fast):
        run_all(engine, todo, None)
    assert fast.clock_s <= slow.clock_s * (1 + 1e-9)
    if is_clock:
        assert slow.energy_j / slow.clock_s <= fast.energy_j / fast.clock_s * (1 + 1e-9)


def test_decode_goes_before_new_prefills_and_prompts_are_chunked() -> None:
    engine = engine_of()
    short, long = Sequence(0, 10, 50), Sequence(1, 200, 5)
    engine.submit(short)
    engine.advance(math.inf, 1)
    engine.submit(long)
    for step in range(2, 6):  # 63 prompt tokens per step: 63, 126, 189, 200
        engine.advance(math.inf, 1)
        assert short.tokens_by(engine.step_count) == step
        assert long.tokens_by(engine.step_count) == (1 if step == 5 else 0)


def test_admission_stops_at_max_num_seqs() -> None:
    engine = engine_of(replace(LAUNCH, max_num_seqs=2))
    for i in range(5):
        engine.submit(Sequence(i, 4, 9))
    engine.advance(math.inf, 1)
    assert (engine.running, engine.waiting) == (2, 3)
    engine.advance(math.inf)
    assert engine.counters.generation_tokens == 18


def test_without_chunks_a_prompt_waits_for_a_whole_budget() -> None:
    launch = replace(LAUNCH, chunked_prefill=False, max_num_batched_tokens=64, max_model_len=64)
    engine = engine_of(launch)
    for sequence in (Sequence(0, 40, 4), Sequence(1, 40, 4)):
        engine.submit(sequence)
    engine.advance(math.inf, 1)
    assert (engine.running, engine.waiting) == (1, 1)
    engine.advance(math.inf, 1)
    assert (engine.running, engine.waiting) == (2, 0)


def test_the_last_admitted_is_preempted_and_computed_anew() -> None:
    engine = engine_of(replace(LAUNCH, kv_blocks=6))
    first, last = Sequence(0, 30, 40), Sequence(1, 30, 40)
    engine.submit(first)
    engine.submit(last)
    while not first.done:
        engine.advance(math.inf, 1)
    assert engine.preemptions == 1
    assert len(first.segments) == 1
    while not last.done:
        engine.advance(math.inf)
    assert len(last.segments) == 2
    assert sum(count for _, count in last.segments) == 40


@pytest.mark.parametrize("steps", [0, 1, 20])
def test_abort_gives_everything_back(steps: int) -> None:
    engine = engine_of()
    sequence, other = Sequence(0, 100, 50), Sequence(1, 100, 50)
    engine.submit(sequence)
    engine.submit(other)
    engine.advance(math.inf, steps)
    engine.abort(other)
    engine.abort(sequence)
    engine.abort(sequence)
    assert (engine.running, engine.waiting) == (0, 0)
    assert engine.free_blocks == engine.launch.kv_blocks
    assert run_all(engine, [(5, 5)], None)[0].done


def test_advance_stops_with_the_step_that_reaches_the_time() -> None:
    engine = engine_of()
    engine.submit(Sequence(0, 10, 300))
    engine.advance(0.5)
    assert engine.log is not None
    assert engine.log.ends_s[-2] < 0.5 <= engine.clock_s < 0.52


def test_idling_for_ever_is_an_error_not_a_hang() -> None:
    with pytest.raises(EngineStalledError):
        engine_of().advance(math.inf)


def test_a_sequence_that_can_never_fit_is_an_error_not_a_hang() -> None:
    engine = engine_of(replace(LAUNCH, kv_blocks=2))
    engine.submit(Sequence(0, 100, 5))
    with pytest.raises(EngineStalledError, match="1 requests wait and none fits"):
        engine.advance(math.inf)


def test_lowered_limits_let_run_what_runs_and_admit_no_more() -> None:
    engine = engine_of()
    long, *short = [Sequence(i, 10, 300 if i == 0 else 40) for i in range(8)]
    for sequence in (long, *short):
        engine.submit(sequence)
    engine.advance(math.inf, 3)
    engine.set_limits(2, 64)
    late = Sequence(8, 10, 5)
    engine.submit(late)
    while not all(sequence.done for sequence in short):
        assert engine.waiting == 1
        engine.advance(math.inf, 1)
    engine.advance(math.inf, 1)
    assert (engine.running, engine.waiting) == (2, 0)
    assert engine.preemptions == 0
    engine.set_limits(8, 64)
    while engine.running:
        engine.advance(math.inf)
    assert late.done


def test_a_lowered_budget_serves_those_admitted_first() -> None:
    engine = engine_of()
    sequences = [Sequence(i, 4, 50) for i in range(4)]
    for sequence in sequences:
        engine.submit(sequence)
    engine.advance(math.inf, 1)
    engine.set_limits(8, 2)
    engine.advance(math.inf, 10)
    assert [s.tokens_by(engine.step_count) for s in sequences] == [11, 11, 1, 1]
    while engine.running:
        engine.advance(math.inf)
    assert engine.counters.generation_tokens == 200
    assert engine.free_blocks == engine.launch.kv_blocks


@pytest.mark.parametrize("limits", [(0, 64), (9, 64), (8, 0), (8, 65)])
def test_limits_stay_within_those_of_the_launch(limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="the server was launched for 1 to"):
        engine_of().set_limits(*limits)


def test_a_shared_prefix_is_computed_once() -> None:
    engine = engine_of(replace(LAUNCH, prefix_caching=True))
    first, again = (Sequence(i, 200, 5, PROMPT[:200]) for i in range(2))
    engine.submit(first)
    engine.advance(math.inf)
    engine.submit(again)
    engine.advance(math.inf)
    assert (again.cached_tokens, engine.prefix_cache.hits) == (192, 192)
    assert engine.prefix_cache.queries == 400
    assert engine.reset_prefix_cache()
    last = Sequence(2, 200, 5, PROMPT[:200])
    engine.submit(last)
    engine.advance(math.inf)
    assert last.cached_tokens == 0


def test_the_next_turn_finds_the_answer_in_the_cache() -> None:
    engine = engine_of(replace(LAUNCH, prefix_caching=True))
    engine.submit(Sequence(0, 100, 60, PROMPT[:100]))
    engine.advance(math.inf)
    answer = engine.answers.tokens(PROMPT[:100], 60)
    prompt = np.concatenate([PROMPT[:100], answer, PROMPT[:20]])
    turn = Sequence(1, 180, 5, prompt)
    engine.submit(turn)
    engine.advance(math.inf)
    assert turn.cached_tokens == 144  # the last token of an answer is never computed


def test_what_arrives_during_a_step_waits_for_the_one_after_next() -> None:
    engine = engine_of(replace(LAUNCH, async_scheduling=True))
    first, second = Sequence(0, 10, 50), Sequence(1, 10, 50)
    engine.submit(first)
    engine.advance(math.inf, 1)
    engine.submit(second)
    engine.advance(math.inf, 1)
    assert second.tokens_by(engine.step_count) == 0
    engine.advance(math.inf, 1)
    assert second.tokens_by(engine.step_count) == 1
