"""A path is trusted if no other user could replace anything on the way to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuner.errors import PreflightError
from tuner.host.files.trusted import distrust_of, require_trusted

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


def made(folder: Path, mode: int) -> Path:
    folder.mkdir()
    folder.chmod(mode)
    return folder


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_a_folder_that_others_may_only_read_is_trusted(tmp_path: Path, mode: int) -> None:
    assert distrust_of(made(tmp_path / "a", mode) / "not/yet/there") is None


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o2777])
def test_one_that_others_may_write_is_not(tmp_path: Path, mode: int) -> None:
    folder = made(tmp_path / "open to all", mode)
    made(folder / "own", 0o700)
    why = distrust_of(folder / "own" / "tuner.db")
    assert why is not None
    assert why.fix == f"chmod go-w '{folder}'"
    with pytest.raises(PreflightError, match="other users may write") as refused:
        require_trusted(folder / "own")
    assert refused.value.exit_code == 3
    os.system(why.fix)
    assert distrust_of(folder / "own" / "tuner.db") is None


def test_a_sticky_one_is_as_long_as_what_is_in_it_is_ours(tmp_path: Path) -> None:
    folder = made(tmp_path / "tmp", 0o1777)
    assert distrust_of(made(folder / "own", 0o700)) is None


def test_a_link_is_as_good_as_what_it_leads_through(tmp_path: Path) -> None:
    safe, unsafe = made(tmp_path / "safe", 0o700), made(tmp_path / "unsafe", 0o777)
    (tmp_path / "one").symlink_to(safe)
    (tmp_path / "two").symlink_to("unsafe/inside/../../safe")
    made(unsafe / "inside", 0o700)
    (tmp_path / "round").symlink_to("round")
    assert distrust_of(tmp_path / "one" / "file") is None
    assert distrust_of(tmp_path / "two" / "file") is not None
    with pytest.raises(OSError, match="symbolic links"):
        distrust_of(tmp_path / "round")


@as_root
@pytest.mark.parametrize("kind", ["folder", "file", "link", "parent"])
def test_what_another_user_owns_is_not(tmp_path: Path, kind: str) -> None:
    place = tmp_path / kind
    if kind == "link":
        place.symlink_to(tmp_path)
    elif kind == "file":
        place.write_text("")
    else:
        made(place, 0o700)
    os.lchown(place, NOBODY, -1)
    asked = place / "below" if kind == "parent" else place
    why = distrust_of(asked)
    assert why is not None
    assert "belongs to nobody" in why.reason
    os.system(why.fix)
    assert distrust_of(asked) is None


@as_root
def test_the_caller_of_sudo_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(made(tmp_path / "home", 0o700), NOBODY, -1)
    assert distrust_of(tmp_path / "home") is not None
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    assert distrust_of(tmp_path / "home") is None
