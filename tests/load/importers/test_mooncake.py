"""Mooncake's JSON lines: blocks with hash ids, times in ms."""

from __future__ import annotations

import pytest
from helpers.trace_samples import Write, refused, rows

from tuner.load.importers.importer import TraceRow

MOONCAKE = '{"timestamp": %s, "input_length": %s, "output_length": %s, "hash_ids": %s}\n'


def test_mooncake(write: Write) -> None:
    source = MOONCAKE % (27482, 1000, 52, [46, 47]) + MOONCAKE % (30535.5, 1030, 26, [])
    assert rows("mooncake", write(source)) == [
        TraceRow(0.0, 52, prompt_tokens=1000, hash_ids=(46, 47)),
        TraceRow(3.0535, 26, prompt_tokens=1030),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (MOONCAKE % ("NaN", 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("Infinity", 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("1e999", 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % (-1, 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("true", 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("9" * 400, 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("9" * 5000, 1, 1, []), "not JSON"),
        (MOONCAKE % (0, 0, 1, []), "input_length must be a whole number from 1"),
        (MOONCAKE % (0, 1, -1, []), "output_length must be a whole number from 1"),
        (MOONCAKE % (0, 1, 1.5, []), "output_length must be a whole number"),
        (MOONCAKE % (0, 1, "NaN", []), "output_length must be a whole number"),
        (MOONCAKE % (0, 1, 1, "null"), "hash_ids must be a list"),
        (MOONCAKE % (0, 1, 1, '["a"]'), "hash_ids must be a whole number"),
        (MOONCAKE % (0, 1, 1, [-1]), "hash_ids must be a whole number"),
        (MOONCAKE % (0, 512, 1, [1, 2]), "2 hash_ids of 512 tokens are more than"),
        ("[1]\n", "expected a JSON object, found [1]"),
        ("{}\n", "timestamp must be a time"),
        ("{oops\n", "not JSON"),
        ("[" * 100_000 + "\n", "nested too deeply"),
        ("x" * (17 * 2**20) + "\n", "longer than"),
        (MOONCAKE % (0, 1, 1, []), "earlier than the row before"),
    ],
)
def test_a_malformed_mooncake_row_names_its_line(write: Write, line: str, says: str) -> None:
    good = "\n" + MOONCAKE % (5, 512, 1, [1]) + "\r\n"
    message = refused("mooncake", write(good + line))
    assert "line 4: " in message
    assert says in message
