"""When evaluations began, on a clock that is never set back: the wall clock of a night may be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tuner.store import RepeatRow, TrialRow

_NOTHING = timedelta(0)


def steady_starts(rows: Sequence[TrialRow | RepeatRow]) -> list[datetime]:
    """Return when each evaluation began; `rows` are in the order in which they ran.

    Where one began before the one before it, the clock had been set back: it is taken to have begun
    when that ended, and all that follows is moved by so much.
    """
    moved, found = _NOTHING, list[datetime]()
    for number, row in enumerate(rows):
        if found and row.started_at + moved < found[-1]:
            moved = found[-1] + _length(rows[number - 1]) - row.started_at
        found.append(row.started_at + moved)
    return found


def _length(row: TrialRow | RepeatRow) -> timedelta:
    """Return how long it took by the wall clock; nothing where that was set back meanwhile."""
    return _NOTHING if row.ended_at is None else max(row.ended_at - row.started_at, _NOTHING)
