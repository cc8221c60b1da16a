from __future__ import annotations

from pathlib import Path

import pytest

from tuner.errors import PreflightError
from tuner.store import Store
from tuner.store.faults import StoreFullError
from tuner.store.upkeep import file_systems
from tuner.store.upkeep.file_systems import file_system, free_bytes, require_local, require_room


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mounts"
    file.write_text(
        "/dev/vda / ext4 rw 0 0\n"
        f"server:/x {tmp_path}/net nfs4 rw 0 0\n"
        f"tmpfs {tmp_path}/net/local\\040disk tmpfs rw 0 0\n"
        f"me@host: {tmp_path}/ssh fuse.sshfs rw 0 0\n"
        "broken\n"
    )
    return file


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("a/t.db", "ext4"),
        ("net/t.db", "nfs4"),
        ("net/deep/er/t.db", "nfs4"),
        ("network/t.db", "ext4"),
        ("net/local disk/t.db", "tmpfs"),
        ("ssh/t.db", "fuse.sshfs"),
    ],
)
def test_the_nearest_mount_counts(tmp_path: Path, mounts: Path, where: str, expected: str) -> None:
    assert file_system(tmp_path / where, mounts) == expected
    if expected in ("nfs4", "fuse.sshfs"):
        with pytest.raises(PreflightError, match=rf"{expected}.*local disk.*PostgreSQL"):
            require_local(tmp_path / where, mounts)
    else:
        require_local(tmp_path / where, mounts)


def test_a_link_to_a_network_folder_is_one(tmp_path: Path, mounts: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "net")
    assert file_system(tmp_path / "link" / "t.db", mounts) == "nfs4"


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "none") is None


def test_no_store_is_made_over_a_network(
    tmp_path: Path, mounts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net").mkdir()
    monkeypatch.setattr(file_systems, "MOUNTS", mounts)
    with pytest.raises(PreflightError, match="network file system"):
        Store.open(tmp_path / "net" / "t.db", create=True)
    assert list((tmp_path / "net").iterdir()) == []


def test_room(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    free = free_bytes(path)
    assert free > 0
    require_room(path, 1)
    with pytest.raises(StoreFullError, match=r"no space is left.*tuner resume"):
        require_room(path, 2**62)
