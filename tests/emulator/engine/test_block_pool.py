import numpy as np
import pytest

from tuner.emulator.engine.block_pool import BlockPool
from tuner.emulator.engine.sequences import Sequence


def sequence_of(number: int, tokens: int, first: int = 0) -> Sequence:
    return Sequence(number, tokens, 1, np.arange(first, first + tokens, dtype=np.int32))


def filled(pool: BlockPool, sequence: Sequence) -> None:
    """Compute a whole prompt."""
    hit = pool.hit(sequence)
    pool.adopt(sequence, hit)
    pool.take(-(-sequence.prompt_tokens // 16) - len(hit))
    pool.register(sequence, sequence.prompt_tokens)


def test_the_block_freed_longest_ago_goes_first_and_of_one_sequence_the_last() -> None:
    pool = BlockPool(4, caching=True)
    old, new = sequence_of(0, 32), sequence_of(1, 32, first=100)
    for sequence in (old, new):
        filled(pool, sequence)
        pool.release(sequence, 32, 32)
    pool.take(1)  # the second block of the older one
    assert len(pool.hit(sequence_of(2, 33))) == 1
    assert len(pool.hit(sequence_of(3, 33, first=100))) == 2
    pool.take(2)
    assert len(pool.hit(sequence_of(4, 33))) == 0
    assert len(pool.hit(sequence_of(5, 33, first=100))) == 1


def test_the_last_token_is_always_computed() -> None:
    pool = BlockPool(8, caching=True)
    filled(pool, sequence_of(0, 32))
    assert len(pool.hit(sequence_of(1, 32))) == 1


def test_a_shared_block_is_free_when_its_last_holder_lets_go() -> None:
    pool = BlockPool(8, caching=True)
    sequences = [sequence_of(i, 33) for i in range(3)]
    for sequence in sequences:
        filled(pool, sequence)
    assert pool.free == 8 - 2 - 3
    for sequence, free in zip(sequences, [4, 5, 8], strict=True):
        pool.release(sequence, 33, 33)
        assert pool.free == free


def test_blocks_computed_side_by_side_are_both_kept() -> None:
    pool = BlockPool(4, caching=True)
    twins = [sequence_of(i, 16) for i in range(2)]
    pool.take(2)
    for sequence in twins:
        pool.register(sequence, 16)
        pool.release(sequence, 16, 16)
    pool.take(3)  # the two blank ones and the first twin
    assert len(pool.hit(sequence_of(2, 17))) == 1
    pool.take(1)
    assert len(pool.hit(sequence_of(3, 17))) == 0


@pytest.mark.parametrize("caching", [True, False])
def test_reset_waits_until_nothing_is_held(caching: bool) -> None:
    pool = BlockPool(4, caching=caching)
    sequence = sequence_of(0, 32)
    filled(pool, sequence)
    assert not pool.reset()
    pool.release(sequence, 32, 32)
    assert pool.reset()
    assert pool.free == 4
    assert pool.hit(sequence_of(1, 33)) == []
