"""Backups of the store as it grows, made between evaluations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from tuner.errors import OperatorNeededError
from tuner.store import Store
from tuner.store.upkeep.backup import (
    MOST_BYTES,
    back_up,
    backup_path,
    generations_within_bound,
    is_due,
)


class Backups:
    """Backs up a SQLite store when it has grown enough since the last backup.

    A backup that fails is reported and skipped, and a store that outgrows the bound of backups is
    not copied any more: every measurement is also in the measurement log.
    """

    def __init__(self, store: Store, evaluations: int, note: Callable[[str], None]) -> None:
        self._store = store
        self._evaluations = evaluations
        self._note = note
        self._has_told = False
        self._at_last = evaluations if _is_there(store.path) else 0

    async def make_if_due(self) -> None:
        """Make a backup if one is due; called before each evaluation."""
        path, count = self._store.path, self._evaluations
        self._evaluations += 1
        if path is None or not is_due(count, self._at_last):
            return
        self._at_last = count
        try:
            if generations_within_bound(path.stat().st_size):
                await asyncio.to_thread(back_up, path)
            else:
                self._tell_of_the_bound(path)
        except OSError as error:
            self._note(f"no backup: {error.strerror}")
        except OperatorNeededError as error:
            self._note(f"no backup: {error}")

    def _tell_of_the_bound(self, path: Path) -> None:
        if not self._has_told:
            self._has_told = True
            self._note(
                f"the store {path} has grown beyond {MOST_BYTES >> 21} MiB and is not backed up "
                "any more; its measurement log has every measurement (`tuner store rebuild`)"
            )


def _is_there(path: Path | None) -> bool:
    return path is not None and backup_path(path, 1).exists()
