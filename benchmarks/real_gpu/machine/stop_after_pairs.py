"""End the night's confirmation cleanly, so that the cards are free for the next jobs.

    python stop_after_pairs.py STORE.db PAIRS SECONDS LATEST_SECONDS

Interrupts the tuner after SECONDS, if one configuration and the default were measured on so many
stretches of unseen traffic, else as soon as they were, and at the latest after LATEST_SECONDS; or
once the checks begin, which need one card. What has been measured stays in the store.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing

_REPEATS = (
    "SELECT kind, trial, traffic, owner_pid, state FROM tuner_repeats WHERE kind IN"
    " ('baseline', 'confirmation', 'stress')"
)


def main(store: str, pairs: int, seconds: float, latest: float) -> None:
    """Wait, then send SIGTERM to the process that owns the latest repeat."""
    began_s = time.monotonic()
    rows: list[tuple[str, int, int | None, int, str]] = []
    while (passed_s := time.monotonic() - began_s) < latest:
        time.sleep(1.0)
        try:
            with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
                rows = database.execute(_REPEATS).fetchall()
        except sqlite3.OperationalError:  # it is not there yet
            continue
        is_enough = passed_s >= seconds and complete_pairs(rows) >= pairs
        if is_enough or any(kind == "stress" for kind, *_ in rows):
            break
    if rows:
        os.kill(rows[-1][3], signal.SIGTERM)


def complete_pairs(rows: list[tuple[str, int, int | None, int, str]]) -> int:
    """Return the most pairs that any configuration has."""
    ended = [row for row in rows if row[4] == "measured"]
    default = {traffic for kind, _, traffic, _, _ in ended if kind == "baseline"}
    own = Counter(
        t for kind, t, traffic, _, _ in ended if kind != "baseline" and traffic in default
    )
    return max(own.values(), default=0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
