"""Reads the load of a day; the format is told by the file unless it is given."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

import numpy as np

from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve
from tuner.load.day.series import curve_of, read_csv, read_prometheus
from tuner.load.importers.reading import Reading
from tuner.load.importers.registry import importer_named
from tuner.load.traces.trace_file import read_lines

_MOST_BYTES = 256 * 2**20
_BIN_S = 60.0
_LEAST_BINS = 2


class DayFormat(StrEnum):
    """Formats of `tuner plan --load`."""

    CURVE = "curve"  # CSV: time, requests_per_s
    PROMETHEUS = "prometheus"  # the answer to a range query, in JSON or CSV
    AZURE = "azure"
    BURSTGPT = "burstgpt"
    MOONCAKE = "mooncake"


_SIGNS = {  # a column that only this format has
    "contexttokens": DayFormat.AZURE,
    "request tokens": DayFormat.BURSTGPT,
}


def read_day(path: Path, form: DayFormat | None = None) -> RateCurve:
    """Return the curve of a file. Raises `UsageError` that names the file, the line and the fault.

    Arrivals of a trace are counted by the minute; a last minute that is not whole is left out.
    """
    if not path.is_file():
        raise UsageError(f"no file '{path}'; give the load of a day as a CSV, JSON or a trace")
    if path.stat().st_size > _MOST_BYTES:
        raise UsageError(f"'{path}' has more than {_MOST_BYTES >> 20} MiB; give a part of it")
    chosen = form or _told_by(path)
    source = f"{path.name} ({chosen})"
    if chosen is DayFormat.PROMETHEUS and path.suffix == ".json":
        return curve_of(path, source, read_prometheus(path, _json(path)))
    if chosen in (DayFormat.CURVE, DayFormat.PROMETHEUS):
        return curve_of(path, source, read_csv(path))
    return _counted(path, source, chosen)


def _told_by(path: Path) -> DayFormat:
    if path.suffix == ".json":
        return DayFormat.PROMETHEUS
    if ".jsonl" in path.suffixes:
        return DayFormat.MOONCAKE
    _, header = next(read_lines(path), (1, ""))
    names = {name.strip().strip('"').lower() for name in header.split(",")}
    return next((form for sign, form in _SIGNS.items() if sign in names), DayFormat.CURVE)


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"'{path}' is no JSON: {str(error)[:80]}") from None


def _counted(path: Path, source: str, form: DayFormat) -> RateCurve:
    rows = importer_named(form).rows(path, Reading(skip_invalid=True))
    times_s = np.array([row.arrival_s for row in rows], dtype=np.float64)
    bins = int(times_s[-1] // _BIN_S) if times_s.size else 0
    if bins < _LEAST_BINS:
        raise UsageError(
            f"'{path}' lasts less than {_LEAST_BINS} minutes, which is no day to plan; give a "
            "longer trace, or a curve with the columns time,requests_per_s"
        )
    counts = np.bincount((times_s // _BIN_S).astype(np.int64))[:bins]
    return RateCurve(_BIN_S, counts / _BIN_S, source)
