"""What a fault of SQLite under an open store is told as."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.errors import OperatorNeededError, PreflightError
from tuner.store.faults import sqlite_fault


def opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE windows (seconds REAL)")
    connection.commit()
    return connection


def fault_of_a_write(path: Path, harm: Callable[[Path], object]) -> Exception | None:
    """Return what a write fails with after `harm` to the file of an open database."""
    connection = opened(path)
    harm(path)
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("INSERT INTO windows VALUES (1)")
    connection.close()
    return sqlite_fault(caught.value, str(path))


def test_a_file_deleted_while_it_is_open_is_an_operators(tmp_path: Path) -> None:
    """SQLite calls it read-only, as if file and folder needed other rights."""
    fault = fault_of_a_write(tmp_path / "tuner.db", Path.unlink)
    assert isinstance(fault, OperatorNeededError)
    assert "deleted, moved or replaced" in str(fault)
    assert "tuner store rebuild" in str(fault)


def test_a_journal_that_cannot_be_opened_in_a_writable_folder_is_an_operators(
    tmp_path: Path,
) -> None:
    """Nobody's rights can mend it; here a folder stands in the journal's place."""
    path = tmp_path / "tuner.db"
    fault = fault_of_a_write(path, lambda store: store.with_name("tuner.db-journal").mkdir())
    assert isinstance(fault, OperatorNeededError)


def test_a_folder_that_cannot_be_written_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path / "none" / "tuner.db")
    fault = sqlite_fault(caught.value, str(tmp_path / "none" / "tuner.db"))
    assert isinstance(fault, PreflightError)
    assert "make file and folder writable" in str(fault)
