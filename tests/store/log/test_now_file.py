from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tuner.records import LoadSnapshot, Source
from tuner.store.log.now_file import NowFile

SNAPSHOT = LoadSnapshot(412.0, None, 35.2, 9.8, Source.MEASURED, Source.EMULATED)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> NowFile:
    return NowFile(tmp_path / "store.db", "night/1")


def test_what_was_written_is_read_by_another_and_gone_when_closed(
    file: NowFile, tmp_path: Path
) -> None:
    file.write(SNAPSHOT)
    now = datetime.now(UTC)
    assert NowFile(tmp_path / "store.db", "night/1").read(now, LONG_AGO) == SNAPSHOT
    assert NowFile(tmp_path / "store.db", "another").read(now, LONG_AGO) is None
    file.close()
    assert file.read(now, LONG_AGO) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_old_or_of_an_earlier_trial_is_not_shown(file: NowFile) -> None:
    file.write(SNAPSHOT)
    now = datetime.now(UTC)
    assert file.read(now + timedelta(seconds=6), LONG_AGO) is None
    assert file.read(now, now + timedelta(seconds=1)) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"at": 3}', '{"at": "2026-01-01"}'])
def test_a_damaged_file_is_no_answer(file: NowFile, tmp_path: Path, text: str) -> None:
    file.write(SNAPSHOT)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert file.read(datetime.now(UTC), LONG_AGO) is None


def test_a_folder_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    file = NowFile(tmp_path / "gone" / "store.db", "night")
    file.write(SNAPSHOT)
    file.close()
    assert file.read(datetime.now(UTC), LONG_AGO) is None


def test_a_database_server_has_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = NowFile("postgresql://somebody@localhost/tuner", "night")
    file.write(SNAPSHOT)
    assert file.read(datetime.now(UTC), LONG_AGO) is None
    assert list(tmp_path.iterdir()) == []
