import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuner.emulator.http.tokenizer import decode, encode, encode_chat


@given(st.lists(st.integers(0, 999), max_size=50))
def test_what_is_written_is_read_back(tokens: list[int]) -> None:
    assert encode(decode(tokens), 1000).tolist() == tokens


def test_words_and_signs_are_tokens() -> None:
    tokens = encode("Hello world, hello!", 50_000)
    assert len(tokens) == 5
    assert tokens.max() < 50_000
    assert np.array_equal(tokens[:2], encode("Hello world", 50_000))


def test_a_conversation_goes_on_where_it_was() -> None:
    said = [{"role": "user", "content": "Hi"}]
    more = [*said, {"role": "assistant", "content": " w7 w8"}, {"role": "user", "content": "So?"}]
    first, second = encode_chat(said, 1000), encode_chat(more, 1000)
    assert np.array_equal(second[: len(first)], first)
    assert second[len(first) : len(first) + 2].tolist() == [7, 8]
