"""ShareGPT's conversations: one request for each answer."""

from __future__ import annotations

import json

import pytest
from helpers.trace_samples import Write, refused, rows

from tuner.load.importers.reading import Reading
from tuner.load.importers.sharegpt import IMPORTER
from tuner.load.traces.trace_file import TraceRow
from tuner.records import Message


def said(*turns: tuple[str, str]) -> dict[str, object]:
    return {"id": "x", "conversations": [{"from": who, "value": what} for who, what in turns]}


def test_sharegpt_asks_once_for_each_answer(write: Write) -> None:
    conversations = [
        said(
            ("system", "Be brief."),
            ("human", "hello 🙂"),
            ("gpt", "x" * 41),
            ("human", "more"),
            ("gpt", ""),
        ),
        said(("gpt", "an answer to nothing"), ("human", "a question without an answer")),
        said(),
    ]
    start = (Message("system", "Be brief."), Message("user", "hello 🙂"))
    more = (*start, Message("assistant", "x" * 41), Message("user", "more"))
    for indent in (None, 2):
        source = json.dumps(conversations, indent=indent)
        assert rows("sharegpt", write(source)) == [
            TraceRow(None, 11, prompt=start),
            TraceRow(None, 1, prompt=more),
        ]


@pytest.mark.parametrize(
    ("source", "item", "says"),
    [
        ("", 1, "no JSON array (parse error: premature EOF)"),
        ("7", 1, "expected a JSON array ([ ... ]), found 7"),
        ("[\n1]", 1, "expected an object with a list 'conversations', found 1"),
        ('[\n\n{"conversations": 3}]', 1, "list 'conversations'"),
        ('[{"conversations": [3]}]', 1, "a turn must hold 'from' and 'value'"),
        ('[{"conversations": [{"from": "dog", "value": "x"}]}]', 1, "found 'dog'"),
        ('[{"conversations": [{"from": [], "value": "x"}]}]', 1, "found []"),
        (
            '[{"conversations": [{"from": "gpt", "value": 1}]}]',
            1,
            "'value' (or 'content') must be a text",
        ),
        ('[{"conversations": []}\n{"conversations": []}]', 2, "I expect ',' or ']'"),
        ('[{"conversations": []},\n]', 2, "no JSON array"),
        ('[{"conversations": []}', 2, "premature EOF"),
        ('[{"conversations": []}]\n7', 2, "trailing garbage"),
        ('[{"conversations": [{"from": "human", "val', 1, "no JSON array"),
        ("[" * 100_000, 1, "nested more than 100 levels deep"),
        ('[{"a":' * 100_000, 1, "nested more than 100 levels deep"),
        ("[" * 90 + "]" * 90, 1, "expected an object with a list 'conversations', found [["),
        ("[" + "9" * 5000 + "]", 1, "integer overflow"),
        (b'["\xff"]', 1, "invalid bytes in UTF8"),
    ],
)
def test_malformed_sharegpt_names_its_item(
    write: Write, source: str | bytes, item: int, says: str
) -> None:
    message = refused("sharegpt", write(source))
    assert f"item {item}: " in message
    assert says in message


def test_an_item_of_sharegpt_cannot_fill_the_memory(write: Write) -> None:
    good = '[{"conversations": []}, "'
    message = refused("sharegpt", write(good + "x" * (40 * 2**20)))
    assert "item 2: longer than 16777216 bytes" in message


def test_blanks_and_a_byte_order_mark_come_before_the_array(write: Write) -> None:
    conversations = json.dumps([said(("human", "hello"), ("gpt", "hi"))]).encode()
    found = rows("sharegpt", write(conversations))
    assert found == rows("sharegpt", write(b"\xef\xbb\xbf" + b" " * 200_000 + conversations))
    assert rows("sharegpt", write("[]")) == []


def test_the_relatives_of_sharegpt_in_the_wild(write: Write) -> None:
    """Names, capitals, tools and nothing said, as data sets of Hugging Face have them."""
    turns = [
        {"from": "Human", "value": "Is it raining?"},
        {"from": "function_call", "value": '{"name": "rain"}'},
        {"from": "observation", "value": '{"rain": true}'},
        {"from": "GPT", "value": "It rains."},
        {"from": "human", "value": None},
    ]
    asked = (Message("user", "Is it raining?"),)
    found = [
        TraceRow(None, 4, prompt=asked),
        TraceRow(
            None,
            3,
            prompt=(
                *asked,
                Message("assistant", '{"name": "rain"}'),
                Message("user", '{"rain": true}'),
            ),
        ),
    ]
    reading = Reading()
    path = write(json.dumps([{"conversations": turns}]))
    assert list(IMPORTER.rows(path, reading)) == found
    assert reading.notes() == (
        "calls of tools that are sent as the assistant's text: 1",
        "answers of tools that are sent as the user's text: 1",
        "turns without text that were left out: 1",
    )
    renamed = [{"role": one["from"], "content": one["value"]} for one in turns]
    for name in ("conversation", "messages"):
        lines = json.dumps({name: renamed}) + "\n" + json.dumps({name: renamed})
        assert rows("sharegpt", write(lines)) == [*found, *found]


def test_a_conversation_that_is_no_text_is_left_out_if_asked(write: Write) -> None:
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    path = write(json.dumps([{"messages": [picture]}, said(("user", "a"), ("gpt", "b"))]))
    assert "item 1: a part of a message is 'image_url', which is not text" in refused(
        "sharegpt", path
    )
    reading = Reading(skip_invalid=True)
    assert len(list(IMPORTER.rows(path, reading))) == 1
    assert reading.notes()[-1].startswith("1 rows were left out (the first: item 1: ")


def test_what_a_conversation_has_beside_its_turns(write: Write) -> None:
    """A system prompt is sent; tools and conversations without a request are said."""
    talk = said(("human", "hi"), ("gpt", "x" * 40))
    source = json.dumps([{**talk, "system": "Be brief.", "tools": "[]"}, said(("human", "hi"))])
    reading = Reading()
    (row,) = IMPORTER.rows(write(source), reading)
    assert row.prompt == (Message("system", "Be brief."), Message("user", "hi"))
    assert reading.notes() == (
        "conversations without a question and its answer that were left out: 1",
        "fields that were not used: tools",
    )
    with_image = json.dumps([{**talk, "image": "x.jpg"}])
    assert "image is 'x.jpg': a request that is more than text" in refused(
        "sharegpt", write(with_image)
    )
