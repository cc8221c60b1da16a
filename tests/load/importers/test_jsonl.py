"""JSON lines of text."""

from __future__ import annotations

import pytest
from helpers.trace_samples import Write, refused, rows

from tuner.load.importers.importer import TraceRow
from tuner.records import Message


def test_jsonl_with_texts_and_messages(write: Write) -> None:
    source = (
        '{"prompt": "hello", "output_tokens": 5, "id": 3}\n'
        '{"messages": [{"role": "user", "content": "h\\u00e9\\ud800", "name": "x"}],'
        ' "max_tokens": 6}\n'
    )
    assert rows("jsonl", write(source)) == [
        TraceRow(None, 5, prompt="hello"),
        TraceRow(None, 6, prompt=(Message("user", "hé\ufffd"),)),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"output_tokens": 5}', "either 'prompt' or 'messages'"),
        ('{"prompt": "x", "messages": [], "output_tokens": 5}', "either 'prompt' or 'messages'"),
        ('{"prompt": "x"}', "output_tokens (or max_tokens) is missing"),
        ('{"prompt": "", "output_tokens": 5}', "prompt must be a text that is not empty"),
        ('{"prompt": 7, "output_tokens": 5}', "prompt must be a text"),
        ('{"messages": [], "output_tokens": 5}', "messages must be a list of messages"),
        ('{"messages": [3], "output_tokens": 5}', "a message must hold role and content"),
        ('{"messages": [{"role": "user"}], "output_tokens": 5}', "content must be a text"),
        ('{"prompt": "x", "output_tokens": 0}', "output_tokens must be a whole number"),
        ('{"prompt": "x", "max_tokens": null}', "max_tokens must be a whole number"),
        ('"x"', "expected a JSON object"),
    ],
)
def test_a_malformed_text_row_names_its_line(write: Write, line: str, says: str) -> None:
    message = refused("jsonl", write('{"prompt": "x", "output_tokens": 5}\n' + line))
    assert "line 2: " in message
    assert says in message
