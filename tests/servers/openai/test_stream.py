from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.servers.openai.stream import CompletionStream, LineSplitter


def chunk(count: int, finish_reason: str | None = None, **more: Any) -> bytes:
    choice = {"token_ids": list(range(count)), "text": "", "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
USAGE = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3})


def judged(*parts: bytes) -> CompletionStream:
    stream = CompletionStream(prompt_tokens=7, output_tokens=3)
    for time_s, part in enumerate(parts):
        stream.feed(part, float(time_s))
    stream.close(float(len(parts)))
    return stream


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))), st.data())
def test_lines_do_not_depend_on_where_the_network_cuts(
    lines: list[str], data: st.DataObject
) -> None:
    whole = "".join(line + "\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    splitter = LineSplitter()
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += splitter.feed(whole[start:end])
    assert [line.decode() for line in found] == lines
    assert splitter.take_rest() == b""


def test_an_unfinished_line_waits_for_its_end() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\r\ntw") == [b"one"]
    assert len(splitter.rest) == 2
    assert splitter.feed(b"o\r") == []
    assert splitter.feed(b"\n") == [b"two"]
    splitter.feed(b"three")
    assert (splitter.take_rest(), splitter.take_rest()) == (b"three", b"")


@settings(deadline=None)
@given(st.data())
def test_the_verdict_does_not_depend_on_where_the_network_cuts(data: st.DataObject) -> None:
    # The text is not ASCII, so that a cut can fall inside a character.
    text = event(choices=[{"token_ids": [4, 5], "text": "Grüße 你好 🙂", "finish_reason": None}])
    whole = b": ping\r\n\r\n" + text + chunk(1, "length") + USAGE + DONE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    stream = judged(*pieces)
    assert stream.problem is None
    assert stream.received == 3
    assert stream.ended_s is not None


def test_tokens_of_a_chunk_share_its_time() -> None:
    stream = judged(chunk(0), chunk(2), chunk(1, "stop"), USAGE, DONE)
    assert stream.problem is None
    assert stream.token_times_s().tolist() == [1.0, 1.0, 2.0]
    assert stream.last_token_s == 2.0
    assert stream.ended_s == 4.0


@pytest.mark.parametrize("odd", ["NaN", "-Infinity", r'"\ud800"', "1" * 400])
@pytest.mark.parametrize("whole", [True, False])
def test_what_only_pythons_json_takes_is_taken(odd: str, whole: bool) -> None:
    choice = '{"token_ids":[1],"finish_reason":null}'
    chunk = 'data: {"choices":[' + choice + '],"odd":' + odd + "}\n\n"
    stream = CompletionStream(prompt_tokens=7, output_tokens=3)
    for part in [chunk] if whole else [chunk[:20], chunk[20:]]:
        stream.feed(part.encode(), 1.0)
    assert (stream.problem, stream.received) == (None, 1)


@pytest.mark.parametrize("payload", ['{"choices":[}', '{"choices":[]} {}', "{" * 100_000])
def test_an_event_from_end_to_end_is_no_less_checked(payload: str) -> None:
    stream = CompletionStream(prompt_tokens=7, output_tokens=3)
    stream.feed(f"data: {payload}\n\n".encode(), 1.0)
    assert stream.problem is not None
    assert stream.problem.startswith("malformed line in the stream: ")


def test_the_usage_may_be_absent_or_running() -> None:
    assert judged(chunk(3, "length"), DONE).problem is None
    running = {"prompt_tokens": 7, "completion_tokens": 2}
    assert judged(chunk(2, usage=running), chunk(1, "length"), USAGE, DONE).problem is None


def test_usage_may_come_without_choices() -> None:
    alone = event(usage={"prompt_tokens": 7, "completion_tokens": 3})
    assert judged(chunk(3, "length"), alone, DONE).problem is None
    wrong = event(usage={"prompt_tokens": 7, "completion_tokens": 4})
    assert (
        judged(chunk(3, "length"), wrong, DONE).problem
        == "usage says 4 completion_tokens, counted 3"
    )


@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning"])
def test_a_chat_without_token_ids_is_told_what_it_lacks(name: str) -> None:
    said = event(choices=[{"delta": {name: "hm"}, "finish_reason": None}])
    assert "must support return_token_ids" in str(judged(said).problem)


def test_no_time_is_made_up_when_no_token_came() -> None:
    stream = judged(DONE)
    assert stream.last_token_s is None
    assert stream.token_times_s().tolist() == []


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ([], "stream closed without finish reason after 0 of 3 tokens"),
        ([chunk(2)], "stream closed without finish reason after 2 of 3 tokens"),
        ([chunk(3)], "stream closed without finish reason after 3 of 3 tokens"),
        ([chunk(3), DONE], "stream closed without finish reason after 3 of 3 tokens"),
        ([chunk(3, "length")], "stream closed without [DONE] after 3 of 3 tokens"),
        ([chunk(2, "length"), DONE], "finished ('length') after 2 of 3 tokens"),
        ([chunk(3, "abort"), DONE], "finish reason 'abort' after 3 of 3 tokens"),
        ([chunk(4, "length"), DONE], "too many tokens: 4 of 3 tokens"),
        ([chunk(3, "length"), DONE, chunk(1)], "data after [DONE]: "),
        (
            [
                chunk(3, "length"),
                event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 2}),
                DONE,
            ],
            "usage says 2 completion_tokens, counted 3",
        ),
        (
            [
                chunk(3, "length"),
                event(choices=[], usage={"prompt_tokens": 6, "completion_tokens": 3}),
                DONE,
            ],
            "usage says 6 prompt_tokens, counted 7",
        ),
        (
            [event(error={"message": "EngineCore died", "code": 500}), DONE],
            "error in the stream: EngineCore died",
        ),
        ([event(error="no"), DONE], "error in the stream: no"),
        ([b'{"error": {"message": "not a stream"}}'], "error in the stream: not a stream"),
        ([b"data: {oops\n"], "malformed line in the stream: '{oops'"),
        ([b"data: \xff\xfe\n"], "malformed line in the stream: "),
        ([b"<html>\n"], "malformed line in the stream: '<html>'"),
        ([b"data: {}\n"], "unexpected event in the stream: '{}'"),
        ([b"data: 5\n"], "unexpected event in the stream: '5'"),
        ([b'data: {"choices": [3]}\n'], "unexpected event in the stream: "),
        ([event(choices=[{"text": "hello", "finish_reason": None}])], "streams text without token"),
        ([b"x" * (5 * 2**20)], "a line of more than 4194304 bytes"),
    ],
)
def test_everything_else_is_a_problem_that_stays(parts: list[bytes], problem: str) -> None:
    stream = judged(*parts)
    assert stream.problem is not None
    assert problem in stream.problem
    first = stream.problem
    stream.feed(chunk(3, "length") + USAGE + DONE, 9.0)
    stream.close(9.0)
    assert stream.problem == first


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_garbage_is_taken_for_an_answer(garbage: bytes) -> None:
    assert judged(garbage).problem is not None


names = st.sampled_from(["choices", "usage", "error", "token_ids", "x"])
odd_events = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(names, inner),
)


@settings(deadline=None, max_examples=40)
@given(odd_events)
def test_no_event_however_odd_is_taken_for_an_answer(odd: object) -> None:
    assert judged(b"data: " + json.dumps(odd).encode() + b"\n\n", DONE).problem is not None


def test_an_answer_that_may_stop_is_whole_wherever_the_model_ends_it() -> None:
    def ended(*parts: bytes) -> str | None:
        stream = CompletionStream(prompt_tokens=7, output_tokens=3, stops=True)
        for part in (*parts, DONE):
            stream.feed(part, 1.0)
        stream.close(2.0)
        return stream.problem

    assert ended(chunk(2, "stop")) is None
    assert ended(chunk(3, "length")) is None
    assert "too many tokens" in str(ended(chunk(4, "stop")))
    assert "after 0 of 3 tokens" in str(ended(chunk(0, "stop")))
    assert "without finish reason" in str(ended(chunk(2)))
