"""Mooncake's JSON lines: blocks with hash ids, times in ms."""

from __future__ import annotations

import pytest
from helpers.trace_samples import Write, refused, rows

from tuner.errors import UsageError
from tuner.load.importers.mooncake import IMPORTER
from tuner.load.importers.reading import Reading
from tuner.load.importers.registry import TimeUnit
from tuner.load.traces.trace_file import TraceRow

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


def of_qwen(*times: float) -> str:
    """As Qwen's traces are: seconds, and an id for each 16 tokens."""
    return "".join(
        MOONCAKE % (time, 40 + 16 * n, 5, list(range(n + 3))) for n, time in enumerate(times)
    )


def test_seconds_and_blocks_of_16_are_told_by_the_numbers_and_said(write: Write) -> None:
    reading = Reading()
    found = list(IMPORTER.rows(write(of_qwen(61.1, 61.4, 63.9)), reading))
    assert [row.arrival_s for row in found] == [0.0, 0.3, 2.8]
    assert reading.block_tokens == 16
    unit, block = reading.notes()
    assert "times are taken for s" in unit and "--time-unit" in unit
    assert "taken for 16 tokens" in block and "--block-tokens" in block


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ((0, 1, 3), "s"),
        ((0, 250, 900), "ms"),
        ((0, 0, 0), "ms"),
        ((0, 150_000, 410_000), "us"),
        ((10**9, 2 * 10**9, 4 * 10**9), "ns"),
    ],
)
def test_the_unit_is_the_one_that_gives_a_load(
    write: Write, times: tuple[int, ...], unit: str
) -> None:
    source = "".join(MOONCAKE % (time, 100, 5, []) for time in times)
    found = list(IMPORTER.rows(write(source), Reading()))
    expected = (times[-1] - times[0]) * TimeUnit(unit).seconds
    assert found[-1].arrival_s == pytest.approx(expected)


def test_what_the_user_says_is_not_guessed(write: Write) -> None:
    reading = Reading(time_unit=TimeUnit.MS, block_tokens=8)
    with pytest.raises(UsageError, match="3 hash_ids of 64 tokens are more than input_length 40"):
        list(IMPORTER.rows(write(of_qwen(61.1, 61.4)), Reading(block_tokens=64)))
    found = list(IMPORTER.rows(write(of_qwen(61.1, 61.4, 63.9)), reading))
    assert [row.arrival_s for row in found] == [0.0, 0.0003, 0.0028]
    assert reading.block_tokens == 8
    assert reading.notes() == ()


@pytest.mark.parametrize("more", ['"delay": 500', '"type": "image"', '"num_images": 2'])
def test_what_is_more_than_a_text_at_a_time_is_refused(write: Write, more: str) -> None:
    line = (MOONCAKE % (0, 100, 5, [])).replace("}", f", {more}}}")
    assert f"{more.split(chr(34))[1]} is " in refused("mooncake", write(line))
