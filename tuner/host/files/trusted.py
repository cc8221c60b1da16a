"""Trusted paths: what only this user and root can replace, from `/` down to the file itself."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import PreflightError

_MOST_LINKS = 40  # as the kernel
_OTHERS_WRITE = 0o022


@dataclass(frozen=True, slots=True)
class Distrust:
    """Why another user could put files of theirs on a path, and the command that mends it."""

    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.reason}; run `{self.fix}`, or use a folder that is yours alone"


def distrust_of(path: Path) -> Distrust | None:
    """Return why `path` cannot be trusted, or None; what does not exist yet is not looked at.

    Every folder and link on the way must belong to this user or root, and no folder may be open to
    the writes of others, unless it is sticky as `/tmp` is. Raises `OSError`.
    """
    for place, found in _on_the_way(path):
        if (why := _distrust(place, found)) is not None:
            return why
    return None


def require_trusted(path: Path) -> None:
    """Raise `PreflightError` with what to do if another user could replace `path`.

    Raises `OSError` if it cannot be looked at.
    """
    why = distrust_of(path)
    if why is not None:
        raise PreflightError(f"'{path}' is not safe to use: {why}")


def is_trusted_user(uid: int) -> bool:
    """Say whether files of that user may be used: this user, root, or whoever called `sudo`.

    Whoever may call the tuner through sudo already names the programs that it starts as root.
    """
    return uid in (0, os.geteuid(), _sudo_user()) or _is_outside(uid)


def _on_the_way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what exists on the way to `path`, each link and each folder that it leads through."""
    here = Path("/")
    left = list(reversed(path.absolute().parts[1:]))
    links = 0
    yield here, here.lstat()
    while left:
        name = left.pop()
        if name == "..":
            here = here.parent
            continue
        place = here / name
        try:
            found = place.lstat()
        except FileNotFoundError:
            return
        yield place, found
        if not stat.S_ISLNK(found.st_mode):
            here = place
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = place.readlink()
        if target.is_absolute():
            here = Path("/")
        left += reversed([part for part in target.parts if part != "/"])


def _distrust(place: Path, found: os.stat_result) -> Distrust | None:
    named = shlex.quote(str(place))
    if not is_trusted_user(found.st_uid):
        owner = _user(found.st_uid)
        if stat.S_ISLNK(found.st_mode):
            return Distrust(f"the link {place} belongs to {owner}", f"rm {named}")
        return Distrust(f"{place} belongs to {owner}", f"chown {_user(os.geteuid())} {named}")
    if stat.S_ISLNK(found.st_mode):
        return None
    is_shared_like_tmp = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    writers = found.st_mode & _OTHERS_WRITE
    if writers & 0o020 and _is_own_group(found.st_gid):
        writers &= ~0o020
    if not writers or is_shared_like_tmp:
        return None
    return Distrust(f"other users may write {place}", f"chmod go-w {named}")


def _is_own_group(gid: int) -> bool:
    """Say whether the group is this user's private one: of the same name, with nobody else."""
    if gid == 0:
        return True
    with suppress(KeyError):
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        is_alone = not set(group.gr_mem) - {user.pw_name}
        return user.pw_gid == gid and user.pw_name == group.gr_name and is_alone
    return False


def _sudo_user() -> int | None:
    asked = os.environ.get("SUDO_UID", "")
    return int(asked) if os.geteuid() == 0 and asked.isdecimal() else None


def _is_outside(uid: int) -> bool:
    """Say whether it stands for a user outside this user namespace, as the host's root."""
    try:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
        is_whole = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    except (OSError, ValueError):
        return False
    return uid == overflow and not is_whole


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
