from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from helpers.night_rows import repeat, values
from helpers.records import START

from tuner.analysis.monotonic_times import steady_starts
from tuner.store import RepeatRow

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ROWS = [repeat(n, 0, values(0.4, 30.0)) for n in range(4)]  # every 5 minutes, for 4


def set_back(rows: list[RepeatRow], first: int) -> list[RepeatRow]:
    """The clock goes back by an hour before the evaluation `first` begins."""
    return [
        row
        if row.number < first or row.ended_at is None
        else replace(row, started_at=row.started_at - HOUR, ended_at=row.ended_at - HOUR)
        for row in rows
    ]


def minutes(rows: list[RepeatRow]) -> list[float]:
    return [(at - START) / MINUTE for at in steady_starts(rows)]


def test_a_clock_that_nobody_sets_is_believed() -> None:
    assert minutes(ROWS) == [0.0, 5.0, 10.0, 15.0]
    assert minutes([]) == []


def test_what_follows_a_step_back_follows_what_was_before_it() -> None:
    assert minutes(set_back(ROWS, 2)) == [0.0, 5.0, 9.0, 14.0]
    assert minutes(set_back(set_back(ROWS, 1), 3)) == [0.0, 4.0, 9.0, 13.0]


def test_a_step_back_in_the_middle_of_an_evaluation_gives_it_no_length() -> None:
    first, *rest = set_back(ROWS, 1)
    assert first.ended_at is not None
    assert minutes([replace(first, ended_at=first.ended_at - HOUR), *rest]) == [0, 0, 5, 10]


def test_what_has_not_ended_has_no_length() -> None:
    rows = set_back(ROWS, 1)
    assert minutes([replace(rows[0], ended_at=None), *rows[1:]]) == [0.0, 0.0, 5.0, 10.0]
