"""What the tuner writes is for its user alone, and never goes through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tuner.errors import PreflightError, UsageError
from tuner.host.files.private import open_private, private_folder, share_with_group

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
WRITE = os.O_WRONLY | os.O_TRUNC


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def written(path: Path, text: str = "new") -> None:
    with os.fdopen(open_private(path, WRITE), "w") as file:
        file.write(text)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        private_folder(tmp_path / "logs" / "night")
        written(tmp_path / "logs" / "night" / "trial.log")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "logs") == mode_of(tmp_path / "logs" / "night") == 0o700
    assert mode_of(tmp_path / "logs" / "night" / "trial.log") == 0o600


def test_an_older_file_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    path.write_text("old")
    path.chmod(0o666)
    written(path)
    assert (mode_of(path), path.read_text()) == (0o600, "new")


def test_links_pipes_and_second_names_are_not_written(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    (tmp_path / "second").hardlink_to(victim)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "second", "pipe"):
        with pytest.raises(PreflightError, match=f"`rm {tmp_path / name}`"):
            open_private(tmp_path / name, WRITE)
    assert victim.read_text() == "kept"
    assert not (tmp_path / "made").exists()


@as_root
def test_another_users_file_or_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    os.chown(tmp_path / "theirs", NOBODY, -1)
    with pytest.raises(PreflightError, match="another user's file"):
        open_private(tmp_path / "theirs", WRITE)
    (tmp_path / "logs").mkdir()
    os.chown(tmp_path / "logs", NOBODY, -1)
    with pytest.raises(PreflightError, match="belongs to nobody; run `chown root "):
        private_folder(tmp_path / "logs" / "night")


@as_root
def test_a_group_reads_what_is_made_after_it_was_asked_for(tmp_path: Path) -> None:
    folder, known = tmp_path / "results", tmp_path / "results" / "tuner.db"
    private_folder(folder)
    written(known)
    before = os.umask(0o077)
    try:
        share_with_group(folder, "nogroup", known)
        private_folder(folder / "logs" / "night")
        written(folder / "logs" / "night" / "trial.log")
    finally:
        os.umask(before)
    for path in (folder, folder / "logs" / "night"):
        assert (mode_of(path), path.stat().st_gid) == (0o2750, NOBODY)
    for path in (known, folder / "logs" / "night" / "trial.log"):
        assert (mode_of(path), path.stat().st_gid) == (0o640, NOBODY)


def test_an_unknown_group_is_a_typing_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such group"):
        share_with_group(tmp_path, "no-such-group-here")
