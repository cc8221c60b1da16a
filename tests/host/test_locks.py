"""A lock is held by an open file."""

from __future__ import annotations

import os
from pathlib import Path

from tuner.host.locks import locked_folder, try_lock


def test_one_holds_it_and_readers_share_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    one, two, three = (os.open(path, os.O_RDWR) for _ in range(3))
    assert try_lock(one)
    assert not try_lock(two)
    assert not try_lock(two, shared=True)
    os.close(one)
    assert try_lock(two, shared=True)
    assert try_lock(three, shared=True)
    os.close(two)
    os.close(three)


def test_a_folder_is_made_and_unlocked_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "new/folder"
    for _ in range(2):
        with locked_folder(folder):
            assert folder.is_dir()
