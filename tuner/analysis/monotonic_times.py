"""Monotonic times: start times of evaluations, corrected if the wall clock was set back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tuner.store import RepeatRow, TrialRow

_NOTHING = timedelta(0)


def steady_starts(rows: Sequence[TrialRow | RepeatRow]) -> list[datetime]:
    """Return when each evaluation began; `rows` are in the order in which they ran.

    If one starts before its predecessor, the clock was set back. It then counts as started when the
    predecessor ended, and all later ones are shifted by the same amount.
    """
    moved, found = _NOTHING, list[datetime]()
    for number, row in enumerate(rows):
        if found and row.started_at + moved < found[-1]:
            moved = found[-1] + _length(rows[number - 1]) - row.started_at
        found.append(row.started_at + moved)
    return found


def _length(row: TrialRow | RepeatRow) -> timedelta:
    """Return the duration by the wall clock; zero if the clock was set back meanwhile."""
    return _NOTHING if row.ended_at is None else max(row.ended_at - row.started_at, _NOTHING)
