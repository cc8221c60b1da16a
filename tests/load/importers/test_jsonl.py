"""JSON lines of text."""

from __future__ import annotations

import json

import pytest
from helpers.trace_samples import Write, refused, rows

from tuner.load.importers.jsonl import IMPORTER
from tuner.load.importers.reading import Reading
from tuner.load.traces.trace_file import TraceRow
from tuner.records import Message


def test_jsonl_with_texts_and_messages(write: Write) -> None:
    source = (
        '{"prompt": "hello", "output_tokens": 5, "id": 3}\n'
        '{"messages": [{"role": "user", "content": "h\\u00e9\\ud800", "name": "x"}],'
        ' "max_tokens": 6}\n'
        '{"prompt": "x", "max_tokens": null, "max_completion_tokens": 7}\n'
    )
    assert rows("jsonl", write(source)) == [
        TraceRow(None, 5, prompt="hello"),
        TraceRow(None, 6, prompt=(Message("user", "hé\ufffd"),)),
        TraceRow(None, 7, prompt="x"),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"output_tokens": 5}', "either 'prompt' or 'messages'"),
        ('{"prompt": "x", "messages": [], "output_tokens": 5}', "either 'prompt' or 'messages'"),
        ('{"prompt": "x"}', "output_tokens (or max_tokens, or max_completion_tokens) is missing"),
        ('{"prompt": "", "output_tokens": 5}', "prompt must be a text that is not empty"),
        ('{"prompt": 7, "output_tokens": 5}', "prompt must be a text"),
        ('{"messages": [], "output_tokens": 5}', "messages must be a list of messages"),
        ('{"messages": [3], "output_tokens": 5}', "a turn must hold 'from' and 'value' (or 'role'"),
        (
            '{"messages": [{"role": "user"}], "output_tokens": 5}',
            "a turn must hold 'value' (or 'content')",
        ),
        ('{"prompt": "x", "output_tokens": 0}', "output_tokens must be a whole number"),
        ('{"prompt": "x", "max_tokens": null}', "max_tokens must be a whole number"),
        ('"x"', "expected a JSON object"),
    ],
)
def test_a_malformed_text_row_names_its_line(write: Write, line: str, says: str) -> None:
    message = refused("jsonl", write('{"prompt": "x", "output_tokens": 5}\n' + line))
    assert "line 2: " in message
    assert says in message


def test_messages_with_tools_and_parts_are_understood(write: Write) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "rain", "arguments": "{}"}}
    first = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Rain"}, "today?"]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "tool", "tool_call_id": "c", "content": "yes"},
    ]
    reading = Reading()
    path = write(json.dumps({"messages": first, "max_tokens": 4}))
    (row,) = IMPORTER.rows(path, reading)
    assert row.prompt == (
        Message("system", "Be brief."),
        Message("user", "Rain\ntoday?"),
        Message("assistant", '{"name": "rain", "arguments": "{}"}'),
        Message("user", "yes"),
    )
    assert "messages without text that were left out: 1" in reading.notes()


def test_messages_that_are_no_text_are_refused(write: Write) -> None:
    spoken = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]
    silent = [{"role": "user", "content": None}]
    for messages, says in ((spoken, "'input_audio', which is not text"), (silent, "no message")):
        path = write(json.dumps({"messages": messages, "max_tokens": 4}))
        assert says in refused("jsonl", path)


@pytest.mark.parametrize("more", ['"n": 4', '"images": ["a.png"]', '"delay_ms": 30'])
def test_work_that_is_more_than_a_text_is_refused(write: Write, more: str) -> None:
    message = refused("jsonl", write(f'{{"prompt": "x", "output_tokens": 5, {more}}}'))
    assert f"{more.split(chr(34))[1]} is " in message


def test_fields_that_are_not_used_are_said(write: Write) -> None:
    reading = Reading()
    path = write('{"prompt": "x", "output_tokens": 5, "user": 3, "n": 1, "images": []}')
    assert len(list(IMPORTER.rows(path, reading))) == 1
    assert reading.notes() == ("fields that were not used: user",)
