"""Numbers with a unit, as vLLM's own parser reads them."""

from __future__ import annotations

import pytest
from helpers.hostile import ODD_NUMBERS, ODD_WORDS, cases, one_sentence_at_most
from hypothesis import given
from hypothesis import strategies as st

from tuner.emulator.http.flag_numbers import as_number
from tuner.errors import UsageError


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("max_model_len", "16k", 16_000),
        ("max_model_len", "16K", 16_384),
        ("max-model-len", " 25.6k ", 25_600),
        ("max_num_batched_tokens", "1m", 1_000_000),
        ("kv_cache_memory_bytes", "2G", 2 * 2**30),
        ("max_model_len", "auto", -1),
        ("max_model_len", "AUTO", -1),
        ("max_model_len", -1, -1),
        ("max_model_len", 4096, 4096),
        ("kv_cache_dtype", "auto", "auto"),
        ("max_num_batched_tokens", "auto", "auto"),
        ("max_num_seqs", "16k", "16k"),
        ("max_model_len", "16 k", "16 k"),
    ],
)
def test_a_number_with_a_unit(name: str, text: str | int, number: object) -> None:
    assert as_number(name, text) == number


def test_a_part_of_a_binary_unit_is_refused_as_vllm_does() -> None:
    with pytest.raises(UsageError, match=r"did you mean 1\.5k \(1500\)"):
        as_number("max_model_len", "1.5K")


@cases()
@given(
    st.sampled_from(["max_model_len", "max_num_batched_tokens", "x"]),
    st.text(max_size=8)
    | st.sampled_from([*ODD_NUMBERS, *ODD_WORDS])
    | st.from_regex(r"\d{1,25}(\.\d{1,4})?[kKmMgGtT]", fullmatch=True),
)
def test_any_text_is_a_number_itself_or_one_sentence(name: str, text: str) -> None:
    with one_sentence_at_most():
        assert isinstance(as_number(name, text), int) or as_number(name, text) == text
