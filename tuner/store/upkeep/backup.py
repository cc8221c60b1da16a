"""Backups of a SQLite store: the last two are kept within a bound, each written atomically."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

from tuner.errors import OperatorNeededError
from tuner.host.durable_files import sync
from tuner.host.files.private import open_private
from tuner.host.locks import is_at, try_lock
from tuner.store.address import first_damage
from tuner.store.faults import sqlite_fault
from tuner.store.upkeep.file_systems import ROOM_BYTES, require_room

GENERATIONS = 2
MOST_BYTES = 2**30  # of all backups, with the one that is being written
_FEWEST_NEW = 10
_NEW_SHARE = 0.1


def backup_path(store: Path, generation: int) -> Path:
    """Return the path of a backup; generation 1 is the newest."""
    return store.with_name(f"{store.name}.backup-{generation}")


def unfinished_path(store: Path) -> Path:
    """Return the temporary path of a backup before it gets its name."""
    return store.with_name(f"{store.name}.backup-new")


def is_due(evaluations: int, at_last: int) -> bool:
    """Say whether a backup is due: after 10 more evaluations that are also a tenth more.

    A store that grows tenfold is thus copied about 24 times.
    """
    return evaluations - at_last >= max(_FEWEST_NEW, _NEW_SHARE * at_last)


def generations_within_bound(store_bytes: int) -> int:
    """Return how many backups of a store of that size `MOST_BYTES` allows: 2, 1 or none.

    The measurement log, of which a store can be rebuilt, has no such bound.
    """
    at_once = MOST_BYTES // max(store_bytes, 1)
    return max(0, min(GENERATIONS, at_once - 1))


def back_up(store: Path) -> Path:
    """Copy the store while it is in use; return the newest backup's path.

    The copy is checked and synced before it replaces older ones. Raises `StoreFullError` if there
    is no space for it, `OperatorNeededError` for a store that is damaged, stays locked, or is being
    backed up by another process; the older backups then stay unchanged.
    """
    new = unfinished_path(store)
    with ExitStack() as undo:
        try:
            descriptor = open_private(new, os.O_RDWR)
            undo.callback(os.close, descriptor)
            if not (try_lock(descriptor) and is_at(new, descriptor)):
                raise OperatorNeededError(f"another process is backing up the store {store} now")
            undo.callback(new.unlink, missing_ok=True)
            return _backed_up(store, new)
        except OSError as error:
            raise OperatorNeededError(
                f"the store {store} could not be backed up ({error.strerror}); check the disk"
            ) from error


def _backed_up(store: Path, new: Path) -> Path:
    store_bytes = store.stat().st_size
    require_room(new, store_bytes + ROOM_BYTES)
    _copy(store, new)
    damage = first_damage(new)
    if damage is not None:
        raise OperatorNeededError(
            f"the copy of the store {store} is damaged ({damage}); check the store with `tuner "
            f"store check --store {store}`"
        )
    kept = max(1, generations_within_bound(store_bytes))
    for generation in range(GENERATIONS, kept, -1):
        backup_path(store, generation).unlink(missing_ok=True)
    for generation in range(kept, 1, -1):
        older = backup_path(store, generation - 1)
        if older.exists():
            older.replace(backup_path(store, generation))
    new.replace(backup_path(store, 1))
    sync(store.parent)
    return backup_path(store, 1)


def _copy(store: Path, new: Path) -> None:
    os.truncate(new, 0)
    address = f"file:{quote(str(store.absolute()))}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(address, uri=True, timeout=60.0)) as source,
            closing(sqlite3.connect(new)) as target,
        ):
            target.execute("PRAGMA synchronous=OFF")  # synced below, before it gets its name
            source.backup(target)
    except sqlite3.Error as error:
        fault = sqlite_fault(error, str(store))
        if fault is None:
            raise
        raise fault from error
    sync(new)
