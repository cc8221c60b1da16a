from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from tuner.errors import OperatorNeededError
from tuner.host.locks import try_lock
from tuner.store import Store
from tuner.store.upkeep import backup
from tuner.store.upkeep.backup import (
    GENERATIONS,
    MOST_BYTES,
    back_up,
    backup_path,
    generations_within_bound,
    unfinished_path,
)

MIB = 2**20


@pytest.mark.parametrize(
    ("store_mib", "kept"), [(0, 2), (1, 2), (341, 2), (342, 1), (512, 1), (513, 0), (10_000, 0)]
)
def test_backups_have_a_bound(store_mib: int, kept: int) -> None:
    assert generations_within_bound(store_mib * MIB) == kept
    if kept:
        assert (kept + 1) * store_mib * MIB <= MOST_BYTES  # while a new one is written


def names(store: Path) -> set[str]:
    return {path.name for path in store.parent.glob("*.backup*")}


def test_a_store_that_grows_keeps_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "tuner.db"
    Store.open(store, create=True).close()
    for _ in range(3):
        back_up(store)
    assert names(store) == {f"tuner.db.backup-{n}" for n in range(1, GENERATIONS + 1)}
    monkeypatch.setattr(backup, "MOST_BYTES", 2 * store.stat().st_size)
    assert back_up(store) == backup_path(store, 1)
    assert names(store) == {"tuner.db.backup-1"}
    with sqlite3.connect(backup_path(store, 1)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_processes_do_not_write_one_backup(tmp_path: Path) -> None:
    store = tmp_path / "tuner.db"
    Store.open(store, create=True).close()
    descriptor = os.open(unfinished_path(store), os.O_RDWR | os.O_CREAT, 0o600)
    assert try_lock(descriptor)
    try:
        with pytest.raises(OperatorNeededError, match="another process is backing up"):
            back_up(store)
        assert unfinished_path(store).exists()
    finally:
        os.close(descriptor)
    back_up(store)  # over what a killed process left
    assert names(store) == {"tuner.db.backup-1"}
