"""Tables of a stored study, one row per trial or per request, and the files they are written to."""

from __future__ import annotations

from tuner import DEFAULT_STORE
from tuner.report import frames
from tuner.report.frames import RowCells, write_csv, write_parquet, writer_for
from tuner.store import Store

__all__ = ["request_rows", "trial_rows", "write_csv", "write_parquet", "writer_for"]


def trial_rows(name: str, store: str = DEFAULT_STORE) -> list[RowCells]:
    """Return one row per trial: knobs, metrics, the front, failures."""
    with Store.open(store, create=False) as opened:
        return frames.trial_rows(opened.study(name), opened.trials(name), opened.repeats.of(name))


def request_rows(name: str, store: str = DEFAULT_STORE) -> list[RowCells]:
    """Return one row per request of every trial; times in s, each trial on its own clock."""
    with Store.open(store, create=False) as opened:
        return frames.request_rows(opened, name)
