"""Disk checks: the disks of the store and of the state folder with the GPU leases."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from tuner.doctor.host import Host
from tuner.errors import PreflightError
from tuner.host.finding import Finding, ok, problem, warning
from tuner.host.state_folder import state_folder
from tuner.store.address import file_of, parse_address

_NEEDED_BYTES = 100 * 2**20
_COMFORTABLE_BYTES = 2 * 2**30  # hundreds of trials with raw records and logs
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "lustre", "ceph", "glusterfs", "beegfs")
_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system under a path. `kind` is None if it is unknown."""

    path: Path
    free_bytes: int
    kind: str | None
    is_writable: bool


def check_disks(store_url: str) -> list[Finding]:
    """Check the disks of the store and the state folder, existing or to be created."""
    path = file_of(parse_address(store_url))
    found = [] if path is None else judge_disk("store disk", disk_under(path.parent))
    try:
        found += judge_disk("state disk", disk_under(state_folder()))
    except PreflightError as error:
        found.append(problem("state disk", str(error), "export TUNER_STATE_DIR=/a/folder"))
    return found


def disk_under(folder: Path) -> Disk:
    """Return the file system of a folder, or of its nearest existing parent."""
    absolute = folder.absolute()
    there = next(p for p in (absolute, *absolute.parents) if p.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return Disk(absolute, shutil.disk_usage(there).free, kind_of(there, Host()), writable)


def kind_of(path: Path, host: Host) -> str | None:
    """Return the type of the file system that is mounted last on the way to `path`."""
    real = path.resolve()
    above: list[tuple[int, str]] = []
    for line in reversed((host.text("/proc/self/mounts") or "").splitlines()):
        _, folder, kind, *_ = line.split(" ")
        if real.is_relative_to(_unescaped(folder)):
            above.append((len(folder), kind))
    return max(above, key=itemgetter(0))[1] if above else None


def _unescaped(folder: str) -> str:
    """Decode the octal escapes that the kernel writes for blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), folder)


def judge_disk(check: str, disk: Disk) -> list[Finding]:
    """Return the finding on one disk."""
    free = f"{_size(disk.free_bytes)} free at {disk.path}"
    kind = f" ({disk.kind})" if disk.kind else ""
    elsewhere = _elsewhere(check)
    if not disk.is_writable:
        return [problem(check, f"{disk.path}{kind} cannot be written by this user", elsewhere)]
    if disk.free_bytes < _NEEDED_BYTES:
        return [problem(check, f"{free}, too little for a run", elsewhere)]
    found = []
    if disk.free_bytes < _COMFORTABLE_BYTES:
        found.append(warning(check, f"{free}, maybe too little for a night", elsewhere))
    if disk.kind is not None and (trouble := _trouble(disk.kind)):
        found.append(warning(check, f"{disk.path} is on {disk.kind}, {trouble}", elsewhere))
    return found or [ok(check, f"{free}{kind}")]


def _size(size_bytes: int) -> str:
    if size_bytes < 2**30:
        return f"{size_bytes / 2**20:.0f} MiB"
    return f"{size_bytes / 2**30:.1f} GiB"


def _elsewhere(check: str) -> str:
    if check == "state disk":
        return "export TUNER_STATE_DIR=/a/folder/on/a/local/disk"
    return "tuner run --store /a/folder/on/a/local/disk/tuner.db ..."


def _trouble(kind: str) -> str | None:
    """Say why records are unsafe on this file system; None if no reason is known."""
    if kind in _NETWORK or kind.startswith("fuse."):
        return "whose locks and syncs cannot be relied on: a crash may lose what was measured"
    if kind in _MEMORY:
        return "which is memory: a restart of the machine loses it"
    if kind == "overlay":
        return "a container's own layer: it is lost with the container"
    return None
