"""File system checks of a store: not a network file system, and enough free space."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from tuner.errors import PreflightError
from tuner.store.faults import full

MOUNTS = Path("/proc/self/mounts")
ROOM_BYTES = 4 * 2**20  # for the records that a run must write to end cleanly
# their locks, or their order of writes, are not what SQLite needs; 9p and virtiofs are left out:
# they share a folder between a host and its guest, where one machine writes
_NETWORK = frozenset(
    (
        *("afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs", "gfs2", "glusterfs", "gpfs"),
        *("lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3"),
        "smbfs",
    )
)
_NETWORK_FUSE = frozenset(
    f"fuse.{name}"
    for name in (
        *("beegfs", "ceph", "ceph-fuse", "curlftpfs", "davfs", "gcsfuse", "glusterfs", "goofys"),
        *("juicefs", "mount-s3", "rclone", "s3fs", "seaweedfs", "smbnetfs", "sshfs"),
    )
)


def require_local(path: Path, mounts: Path | None = None) -> None:
    """Raise `PreflightError` if the file is, or would be, on a network file system."""
    found = file_system(path, mounts)
    if found in _NETWORK | _NETWORK_FUSE:
        raise PreflightError(
            f"the store {path} is on a network file system ({found}), where SQLite's locks do not "
            "hold and a crash can destroy it; name a file on a local disk with --store, or a "
            "PostgreSQL database"
        )


def file_system(path: Path, mounts: Path | None = None) -> str | None:
    """Return the type of the file system of a path, as the kernel names it; None if unknown.

    `mounts` has the form of /proc/self/mounts, which is read if it is None.
    """
    try:
        lines = (mounts or MOUNTS).read_text(errors="replace").splitlines()
    except OSError:
        return None
    target = Path(os.path.realpath(path))
    best: tuple[int, str] | None = None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(_unescaped(fields[1]))
        depth = len(point.parts)
        # of two mounts on one point the later covers the earlier
        if target.is_relative_to(point) and (best is None or depth >= best[0]):
            best = (depth, fields[2])
    return None if best is None else best[1]


def free_bytes(path: Path) -> int:
    """Return how many bytes this process can still write near `path`; raises `OSError`."""
    status = os.statvfs(path.parent)
    free = status.f_bavail * status.f_frsize
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return free
    size = path.stat().st_size if path.exists() else 0
    return min(free, max(limit - size, 0))


def require_room(path: Path, room_bytes: int = ROOM_BYTES) -> None:
    """Raise `StoreFullError` if fewer bytes are free for the store; raises `OSError`."""
    if free_bytes(path) < room_bytes:
        raise full(str(path))


def _unescaped(text: str) -> str:
    """Decode the octal escapes of blanks and backslashes."""
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text
