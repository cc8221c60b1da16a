"""Private files: for this user alone, never opened through a link, in a folder of the same kind.

Folders are made with mode 0700 and files with 0600. Where the folder is shared with a group
(`share_with_group`), the group may read what is made in it.
"""

from __future__ import annotations

import errno
import grp
import os
import shlex
import stat
from pathlib import Path

from tuner.errors import PreflightError, UsageError
from tuner.host.files.trusted import is_trusted_user, require_trusted

_GROUP_READS = stat.S_ISGID | stat.S_IRGRP


def private_folder(path: Path) -> None:
    """Make the folder and those above it, as far as they are missing.

    Raises `PreflightError` if another user could replace one of them, and `OSError`.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()]
    for place in reversed(missing):
        mode = 0o750 if _is_shared(place.parent) else 0o700
        try:
            place.mkdir(mode=mode)
            if mode != 0o700:
                place.chmod(0o2750)  # the umask may have taken the group's part
        except FileExistsError:
            continue  # made meanwhile, or a link that leads nowhere: looked at below
    require_trusted(path)
    if missing and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def open_private(path: Path, flags: int) -> int:
    """Open a file, which is created if it is missing; return its close-on-exec descriptor.

    A file of this user that others may read or write is closed to them. Raises `PreflightError` if
    `path` is a link, no regular file or another user's, and `OSError`.
    """
    mode = 0o640 if _is_shared(path.parent) else 0o600
    safe = flags & ~os.O_TRUNC | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, safe, mode)
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink():
            raise _refused(path, "a link") from None
        if error.errno == errno.ENXIO:  # a pipe without a reader
            raise _refused(path, "no regular file") from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "no regular file")
        if not is_trusted_user(found.st_uid):
            raise _refused(path, "another user's file")
        if found.st_nlink > 1:
            raise _refused(path, "a second name of another file")
        if stat.S_IMODE(found.st_mode) != mode and os.geteuid() in (0, found.st_uid):
            os.fchmod(descriptor, mode)  # also where the umask took the group's part
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def group_to_share_with(folder: Path, group: str) -> int:
    """Return the number of a group that this user may give the folder to.

    Raises `UsageError` for a group that this machine does not know, `PreflightError` for one that
    the user is not in: even in a folder of that group, its files would be the user's alone.
    """
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageError(f"--readable-by {group}: this machine has no such group") from None
    if os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups()):
        raise _not_given(folder, group, os.strerror(errno.EPERM))
    return gid


def share_with_group(folder: Path, group: str, known: Path | None = None) -> None:
    """Make the folder, if it is missing, and let a group read it and what is made in it from now.

    The group may also read the file `known`, if it exists.

    Raises `UsageError` for a group that this machine does not know, `PreflightError` if the folder
    cannot be used, or given to the group.
    """
    gid = group_to_share_with(folder, group)
    try:
        private_folder(folder)
        os.chown(folder, -1, gid)
        folder.chmod(0o2750)  # after chown, which takes the bit away
        if known is not None and known.exists():
            descriptor = open_private(known, os.O_RDONLY)
            try:
                os.chown(descriptor, -1, gid)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise _not_given(folder, group, error.strerror) from None


def _is_shared(folder: Path) -> bool:
    try:
        return folder.stat().st_mode & _GROUP_READS == _GROUP_READS
    except OSError:
        return False


def _not_given(folder: Path, group: str, reason: str | None) -> PreflightError:
    return PreflightError(
        f"--readable-by {group}: cannot give '{folder}' to that group ({reason}); be a member of "
        "it, or run as root"
    )


def _refused(path: Path, what: str) -> PreflightError:
    named = shlex.quote(str(path))
    return PreflightError(
        f"'{path}' is {what}, which the tuner does not write to; look at it, then `rm {named}`"
    )
