"""Streams of servers that return no token ids, as they were recorded, cut and reordered."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.hostile import cases
from hypothesis import given
from hypothesis import strategies as st

from tuner.servers.openai.text_stream import TextStream

# llama.cpp's were recorded (b1-7e4c0a9, a random tiny model); the others are written after the code
# that sends them: serving_completions.py of SGLang 004c82e, postprocess_handlers.py of TensorRT-LLM
# 01bf192, middleware/openai.go of Ollama 077a50b
STREAMS = Path(__file__).parents[1] / "streams"


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def text(said: str, finish: str | None = None, **more: Any) -> bytes:
    return event(choices=[{"index": 0, "text": said, "finish_reason": finish}], **more)


def usage(made: int, asked: int = 7) -> dict[str, int]:
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": made + asked}


DONE = b"data: [DONE]\n\n"


def judged(asked: int, *parts: bytes, stops: bool = False) -> TextStream:
    """Feed each part at its own second."""
    stream = TextStream(asked, stops=stops)
    for number, part in enumerate(parts):
        stream.feed(part, float(number))
    stream.close(float(len(parts)))
    return stream


@pytest.mark.parametrize(
    ("name", "asked", "prompt"),
    [
        ("llama_cpp_completion", 4, 22),
        ("llama_cpp_chat", 3, 56),
        ("sglang_completion", 4, 22),
        ("tensorrt_llm_completion", 4, 22),
        ("ollama_completion", 4, 22),
    ],
)
def test_the_stream_of_a_server(name: str, asked: int, prompt: int) -> None:
    """A token without text, such as half a character, is counted all the same."""
    whole = (STREAMS / f"{name}.sse").read_bytes()
    stream = judged(asked, *[part + b"\n\n" for part in whole.split(b"\n\n") if part])
    assert stream.problem is None
    assert (stream.received, stream.prompt_tokens) == (asked, prompt)


def test_a_chunk_of_zeros_says_nothing_of_the_tokens() -> None:
    """Ollama's completions send a usage of zeros with each chunk, and the counts after the last."""
    whole = (STREAMS / "ollama_completion.sse").read_bytes()
    stream = judged(4, *[part + b"\n\n" for part in whole.split(b"\n\n") if part])
    assert stream.token_times_s().tolist() == [0.0, 1.0, 2.0, 2.0]
    lost = judged(4, *[part + b"\n\n" for part in whole.split(b"\n\n") if b":22" not in part])
    assert lost.problem is not None


def test_tokens_are_spread_over_the_text_that_arrived() -> None:
    stream = judged(5, text("a"), text("b"), text("", "length", usage=usage(5)), DONE)
    assert stream.problem is None
    assert stream.token_times_s().tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert stream.prompt_tokens == 7


def test_usage_with_every_chunk_says_which_tokens_it_had() -> None:
    """As SGLang's continuous usage."""
    stream = judged(
        5,
        text("a", usage=usage(1)),
        text("bcde", usage=usage(5)),
        text("", "length", usage=usage(5)),
        event(choices=[], usage=usage(5)),
        DONE,
    )
    assert stream.problem is None
    assert stream.token_times_s().tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_reasoning_and_usage_without_choices() -> None:
    thinking = event(choices=[{"delta": {"reasoning_content": "hm"}, "finish_reason": None}])
    last = event(choices=[{"delta": {}, "finish_reason": "length"}])
    stream = judged(2, thinking, thinking, last, event(usage=usage(2)), DONE)
    assert stream.problem is None
    assert stream.token_times_s().tolist() == [0.0, 1.0]


def test_a_server_that_may_stop_early_is_believed() -> None:
    parts = (text("a"), text("b", "stop"), event(choices=[], usage=usage(2)), DONE)
    assert judged(9, *parts, stops=True).problem is None
    assert judged(9, *parts).problem == "finished ('stop') after 2 of 9 tokens"


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ([text("a", "length"), DONE], "does not say how many tokens it made: no usage"),
        ([text("", "length", usage=usage(3)), DONE], "an answer without text, of 3 tokens"),
        ([text("a"), text("b")], "stream closed without finish reason"),
        ([text("a", "length", usage=usage(4)), DONE], "too many tokens: 4 of 3"),
        ([text("a", "length", usage=usage(3))], "stream closed without [DONE]"),
        ([event(error={"message": "context is full"})], "error in the stream: context is full"),
        ([b"data: {}\n\n"], "unexpected event"),
    ],
)
def test_what_is_missing_is_said(parts: list[bytes], problem: str) -> None:
    stream = judged(3, *parts)
    assert stream.problem is not None and problem in stream.problem


@cases()
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    running=st.booleans(),
    cuts=st.lists(st.integers(0, 2000), max_size=6),
)
def test_every_token_gets_a_time_of_its_text(
    sizes: list[int], running: bool, cuts: list[int]
) -> None:
    made, parts = 0, []
    for number, size in enumerate([1, *sizes]):
        made += size
        more = {"usage": usage(made)} if running else {}
        parts.append(text(f"word{number}" if size else "", **more))
    whole = b"".join([*parts, text("", "length", usage=usage(made)), DONE])
    edges = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    stream = judged(made, *[whole[a:b] for a, b in pairwise(edges)])
    assert stream.problem is None
    times = stream.token_times_s()
    assert len(times) == made
    assert (times[1:] >= times[:-1]).all()


@cases()
@given(
    order=st.permutations([text("a"), text("b"), text("", "length"), event(usage=usage(2)), DONE]),
    lost=st.sets(st.integers(0, 4)),
)
def test_what_is_reordered_or_lost_is_never_counted_wrongly(
    order: list[bytes], lost: set[int]
) -> None:
    stream = judged(2, *[part for number, part in enumerate(order) if number not in lost])
    if stream.problem is None:
        assert stream.received == 2
        assert order[-1] is DONE or 4 - len(lost) <= order.index(DONE)
