"""Mooncake traces: JSON lines of time, lengths, and hash ids of the prompt's blocks.

Format: FAST25-release/traces in github.com/kvcache-ai/Mooncake, with times in ms and blocks of 512
tokens. Qwen's traces (alibaba-edu/qwen-bailian-usagetraces-anon) have the same fields in seconds,
with blocks of 16: unit and block are told by the numbers themselves, unless the user says them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tuner.load.importers.importer import Importer
from tuner.load.importers.reading import Reading
from tuner.load.importers.registry import TimeUnit
from tuner.load.importers.rows.other_work import refuse_other_work, says_other_work
from tuner.load.importers.rows.rows_of_lines import each_line, in_time_order
from tuner.load.traces.trace_file import (
    BadRowError,
    TraceRow,
    hash_ids,
    json_object,
    read_lines,
    time_s,
    tokens,
)

_BLOCK_TOKENS = 512
_BLOCKS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_FIELDS = {"timestamp", "input_length", "output_length", "hash_ids"}
_LOOKED_AT = 1000  # rows, to tell unit and block by
_MOST_PER_S = 500.0  # requests, of all traces that are known
_LONGEST_GAP_S = 30.0  # between requests, on average


class MooncakeImporter:
    """Reads Mooncake's JSON lines."""

    caveat = ""
    block_tokens = _BLOCK_TOKENS
    has_time_unit = True

    def rows(self, path: Path, reading: Reading) -> Iterator[TraceRow]:
        """Yield the requests; raises `UsageError` that names the line."""
        looked_at = list(islice(_glances(path), _LOOKED_AT))
        unit = reading.time_unit or _unit(looked_at, reading)
        block_tokens = reading.block_tokens or _block(looked_at, reading)
        reading.block_tokens = block_tokens
        read = partial(_row, reading, unit.seconds, block_tokens)
        return in_time_order(path, each_line(path, reading, read_lines(path), read))


@dataclass(frozen=True, slots=True)
class _Glance:
    time: float
    prompt_tokens: int
    blocks: int


def _glances(path: Path) -> Iterator[_Glance]:
    """Yield what unit and block can be told by; a row that says less is left to the reading."""
    for _, line in read_lines(path):
        try:
            fields = json_object(line)
            time_s(fields.get("timestamp"), "timestamp")
            length = tokens(fields.get("input_length"), "input_length")
            blocks = len(hash_ids(fields.get("hash_ids", []), "hash_ids"))
            yield _Glance(fields["timestamp"], length, blocks)
        except BadRowError:
            continue


def _unit(rows: Sequence[_Glance], reading: Reading) -> TimeUnit:
    """Return the unit that the times look like: ms, unless they are no times in ms."""
    gap = (rows[-1].time - rows[0].time) / (len(rows) - 1) if len(rows) > 1 else 0
    if gap <= 0:
        return TimeUnit.MS
    has_fractions = any(row.time != int(row.time) for row in rows)
    order = [TimeUnit.MS, TimeUnit.S, TimeUnit.US, TimeUnit.NS]
    if has_fractions:
        order[:2] = TimeUnit.S, TimeUnit.MS
    unit = next(
        (u for u in order if 1 / _MOST_PER_S <= gap * u.seconds <= _LONGEST_GAP_S), TimeUnit.MS
    )
    if unit is not TimeUnit.MS:
        reading.say(
            f"times are taken for {unit.value}, by their size, not for Mooncake's ms; say "
            "--time-unit if that is wrong"
        )
    return unit


def _block(rows: Sequence[_Glance], reading: Reading) -> int:
    """Return how many tokens a hash id stands for: 512, unless that fits no row's length."""
    named = [row for row in rows if row.blocks > 1]
    if not named or all(_are_blocks(row, _BLOCK_TOKENS) for row in named):
        return _BLOCK_TOKENS
    fitting: list[int] = [size for size in _BLOCKS if all(_are_blocks(row, size) for row in named)]
    if not fitting or len(named) < 2:  # one row may be wrong by itself
        return _BLOCK_TOKENS
    reading.say(
        f"a hash id is taken for {fitting[0]} tokens, by the lengths, not for Mooncake's 512; say "
        "--block-tokens if that is wrong"
    )
    return fitting[0]


def _are_blocks(row: _Glance, size: int) -> bool:
    """Say whether so many ids name every block of a prompt, or every full one."""
    return row.blocks in (-(-row.prompt_tokens // size), row.prompt_tokens // size)


def _row(reading: Reading, unit_s: float, block_tokens: int, line: str) -> TraceRow:
    fields = json_object(line)
    _check_others(fields, reading)
    row = TraceRow(
        arrival_s=time_s(fields.get("timestamp"), "timestamp", unit_s),
        prompt_tokens=tokens(fields.get("input_length"), "input_length"),
        output_tokens=tokens(fields.get("output_length"), "output_length"),
        hash_ids=hash_ids(fields.get("hash_ids", []), "hash_ids"),
    )
    assert row.prompt_tokens is not None
    if (len(row.hash_ids) - 1) * block_tokens >= row.prompt_tokens:
        raise BadRowError(
            f"{len(row.hash_ids)} hash_ids of {block_tokens} tokens are more than "
            f"input_length {row.prompt_tokens}; --block-tokens says how long a block is"
        )
    return row


def _check_others(fields: dict[str, Any], reading: Reading) -> None:
    for name, value in fields.items():
        if name not in _FIELDS:
            refuse_other_work(name, value)
            if not says_other_work(name):
                reading.unused([name])


IMPORTER: Importer = MooncakeImporter()
