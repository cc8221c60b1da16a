"""What steers a terminal, or turns text around, does not come from data."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.host.plain_text import plain_text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("plain \N{SNOWMAN}\n\ttext", "plain \N{SNOWMAN}\n\ttext"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b2Jgone", "gone"),
        ("\x1bPq sixel \x1b\\after", "after"),
        ("a\x00b\x08c\rd", "a\ufffdb\ufffdc\ufffdd"),
        ("dos\r\nlines\r\n", "dos\nlines\n"),
        ("left\u202eright\u2066", "left\ufffdright\ufffd"),
        ("lone\ud800", "lone\ufffd"),
    ],
)
def test_what_becomes_of(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@given(st.text(st.characters()))
def test_nothing_is_left_and_nothing_changes_twice(text: str) -> None:
    plain = plain_text(text)
    assert plain_text(plain) == plain
    for character in plain:
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        assert unicodedata.bidirectional(character) not in (
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"
        )  # fmt: skip
