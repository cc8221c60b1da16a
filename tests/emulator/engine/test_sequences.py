from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.emulator.engine.sequences import DecodePool, Sequence


def blocks(tokens: int) -> int:
    return -(-tokens // 16)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(0, 30)), min_size=1, max_size=12),
    st.integers(1, 60),
)
def test_blocks_needed_is_what_counting_each_sequence_gives(
    joined: list[tuple[int, int]], steps: int
) -> None:
    pool = DecodePool()
    for prompt, step in joined:
        pool.add(Sequence(0, prompt, 1000), step)
    first = 31  # later than every join
    expected = 0
    for prompt, step in joined:
        cached = prompt + first - step - 1
        expected += blocks(cached + steps) - blocks(cached)
    assert pool.blocks_needed(first, steps) == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 99), st.integers(2, 50)), min_size=1, max_size=10))
def test_sums_return_to_zero_and_each_ends_at_its_step(shapes: list[tuple[int, int]]) -> None:
    pool = DecodePool()
    for prompt, output in shapes:
        pool.add(Sequence(0, prompt, output), 0)
    done, steps = 0, 1
    while done < len(shapes):
        pool.ran(1)
        steps += 1
        for sequence in pool.pop_finished(steps):
            cached = pool.remove(sequence, steps)
            assert cached == sequence.prompt_tokens + sequence.output_tokens - 1
            assert sequence.generated == sequence.output_tokens == steps
            done += 1
    assert pool.count == pool.context_tokens == 0
    assert pool.blocks_needed(0, 64) == 0
    assert pool.next_finish() is None


def test_a_preempted_sequence_does_not_end_at_its_old_step() -> None:
    pool = DecodePool()
    sequence = Sequence(0, 10, 5)
    pool.add(sequence, 0)
    pool.ran(1)
    pool.remove(sequence, 2)
    assert (sequence.generated, sequence.prefill_tokens) == (2, 12)
    assert pool.next_finish() is None
    pool.add(sequence, 7)
    assert pool.next_finish() == 9
    assert pool.pop_finished(9) == []
    assert pool.pop_finished(10) == [sequence]
    assert sequence.tokens_by(10) == 5
