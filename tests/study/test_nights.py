"""The table of faults: each has a promise, and a test that is really there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "fault-tolerance.md"
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
FAULTS = range(1, 47)
WALL_CLOCK = re.compile(r"\btime\.time\(|\bdatetime\.now\(\)")
MEASURES = ("devices", "load", "measurement", "search", "servers", "evaluation", "study")


@cache
def text_of(file: str) -> str:
    path = TESTS / file
    return path.read_text() if path.is_file() else ""


def test_every_fault_has_a_row() -> None:
    assert [int(number) for number, *_ in ROW.findall(TABLE.read_text())] == list(FAULTS)


def test_every_promise_is_shown_by_a_test_or_does_not_apply() -> None:
    for number, _, promise, shown in ROW.findall(TABLE.read_text()):
        assert NAMED.search(shown) or promise.startswith("does not apply: "), number


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(TABLE.read_text())
    assert len(named) > len(FAULTS)
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(async )?def {name}\(", text_of(file), re.MULTILINE)
    ]
    assert missing == []


def test_durations_are_never_taken_from_the_wall_clock() -> None:
    package = TESTS.parent / "tuner"
    found = [
        str(path)
        for folder in MEASURES
        for path in (package / folder).rglob("*.py")
        if WALL_CLOCK.search(path.read_text())
    ]
    assert found == []
