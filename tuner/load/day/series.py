"""Time series of requests/s: CSV with a time column, and Prometheus' answers to range queries."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve
from tuner.load.traces.trace_file import at_line, moment_s, read_lines, shown

_TIME_NAMES = ("time", "timestamp", "_time")
_DAY_S = 86_400.0
_EARLIEST_S = 1e8  # smaller times count from a midnight
_EARLIEST_MS = 1e11
_SAME = 0.01  # of a step: how far times may be off the grid
_MOST_STEPS = 1_000_000
_MOST_RATE = 1e7  # requests/s; no fleet takes more

Point = tuple[float, float]  # time, s; requests/s


def curve_of(path: Path, source: str, points: Sequence[Point]) -> RateCurve:
    """Return the curve; raises `UsageError` for gaps, and for rates that are no rates."""
    if len(points) < 2:
        raise UsageError(f"'{path}' has fewer than two times; a plan needs a load over time")
    times_s, rates = np.array(points, dtype=np.float64).T
    steps_s = np.diff(times_s)
    step_s = float(np.median(steps_s))
    if step_s <= 0.0 or (steps_s <= 0.0).any():
        place = int((steps_s <= 0.0).argmax())
        raise UsageError(
            f"'{path}': the time of row {place + 2} is not after the one before; sort the rows by "
            "time, each time once"
        )
    apart = np.abs(steps_s - step_s) > _SAME * step_s
    if apart.any():
        place = int(apart.argmax())
        raise UsageError(
            f"'{path}': after row {place + 1} there is a step of {steps_s[place]:g} s where the "
            f"others have {step_s:g} s; fill the gap (0 if nothing came), or export equal steps"
        )
    wrong = ~np.isfinite(rates) | (rates < 0.0) | (rates > _MOST_RATE)
    if wrong.any():
        place = int(wrong.argmax())
        raise UsageError(
            f"'{path}': row {place + 1} has {rates[place]:g} requests/s; rates must be from 0 to "
            f"{_MOST_RATE:g} (`rate()` and not `delta()` in PromQL), and a gap must be filled"
        )
    if not rates.any():
        raise UsageError(f"'{path}' has no load at all: every rate is 0")
    start_s = float(times_s[0])
    starts_at = datetime.fromtimestamp(start_s, UTC) if start_s >= _EARLIEST_S else None
    return RateCurve(step_s, rates, source, starts_at)


def read_csv(path: Path) -> list[Point]:
    """Read a CSV with a header: a time, and one or more columns of requests/s, which are summed.

    A time is in seconds (or milliseconds) since 1970, seconds from a midnight, ISO 8601, or HH:MM.
    """
    lines = read_lines(path)
    _, header = next(lines, (1, ""))
    names = [name.strip().lower() for name in _fields(header)]
    if not header.strip():
        raise UsageError(f"'{path}' is empty; export a header time,requests_per_s and its rows")
    if len(names) < 2 or names[0] not in _TIME_NAMES:
        raise UsageError(
            f"'{path}' begins with {shown(header.strip()[:40])}; expected a header like "
            "time,requests_per_s (or say its --load-format)"
        )
    return list(_rows(path, lines, len(names)))


def read_prometheus(path: Path, answer: object) -> list[Point]:
    """Read the answer to `/api/v1/query_range`; several series are summed."""
    try:
        result = answer["data"]["result"]  # type: ignore[index]
        series = [{float(t): float(v) for t, v in one["values"]} for one in result]
    except (TypeError, KeyError, ValueError, OverflowError):
        raise UsageError(
            f"'{path}' is no answer to a Prometheus range query; save that of "
            "its query_range, which has data.result with values"
        ) from None
    times = sorted({time for one in series for time in one})
    return [(time, sum(one.get(time, 0.0) for one in series)) for time in times]


def _rows(path: Path, lines: Iterable[tuple[int, str]], columns: int) -> Iterator[Point]:
    for count, (number, line) in enumerate(lines):
        if not line.strip():
            continue
        fields = _fields(line)
        if len(fields) != columns:
            raise at_line(path, number, f"{len(fields)} fields, the header has {columns}")
        if count > _MOST_STEPS:
            raise at_line(path, number, f"more than {_MOST_STEPS} rows; export longer steps")
        try:
            rate = sum(_rate(field) for field in fields[1:])
            time_s = _time_s(fields[0])
        except ValueError as error:
            raise at_line(path, number, error) from None
        yield time_s, rate


def _fields(line: str) -> list[str]:
    return next(csv.reader([line.lstrip("\ufeff")]), [])


def _rate(field: str) -> float:
    try:
        return float(field) if field.strip() else math.nan
    except ValueError:
        raise ValueError(
            f"requests/s must be a plain number, found {shown(field)}; export without units"
        ) from None


def _time_s(field: str) -> float:
    text = field.strip()
    try:
        number = float(text)
        return number / 1000.0 if number >= _EARLIEST_MS else number
    except ValueError:
        pass
    parts = text.split(":")
    if len(parts) in (2, 3) and all(part.isdecimal() for part in parts):
        hours, minutes, *rest = map(int, parts)
        if hours <= 24 and minutes < 60 and (not rest or rest[0] < 60):
            return hours * 3600.0 + minutes * 60.0 + (rest[0] if rest else 0)
    try:
        return moment_s(text)
    except ValueError:
        raise ValueError(
            f"a time must be seconds, HH:MM or like 2024-05-10T18:00:00Z, found {shown(field)}"
        ) from None
