"""ShareGPT's conversations: one request for each answer."""

from __future__ import annotations

import json

import pytest
from helpers.trace_samples import Write, refused, rows

from tuner.load.importers.importer import TraceRow
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
        ("{}", 1, "expected a JSON array ([ ... ]), found an object"),
        ("7", 1, "expected a JSON array ([ ... ]), found 7"),
        ("[\n1]", 1, "expected an object with a list 'conversations', found 1"),
        ('[\n\n{"conversations": 3}]', 1, "list 'conversations'"),
        ('[{"conversations": [3]}]', 1, "a turn must hold 'from' and 'value'"),
        ('[{"conversations": [{"from": "dog", "value": "x"}]}]', 1, "found 'dog'"),
        ('[{"conversations": [{"from": [], "value": "x"}]}]', 1, "found []"),
        ('[{"conversations": [{"from": "gpt", "value": 1}]}]', 1, "'value' must be a text"),
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
