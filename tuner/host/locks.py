"""File locks (flock): held by an open file, released when its process ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.errors import OperatorNeededError
from tuner.host.durable_files import sync
from tuner.host.files.private import open_private, private_folder

_LOCK_DEADLINE_S = 60.0  # longer than the deadline of a driver call that runs under the lock
_POLL_S = 0.02


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file; return False if another process holds it. Closing the file unlocks it."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(path: Path, descriptor: int) -> bool:
    """Say whether an open file is the one at `path` now, not one that was there before."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make `folder` and hold its lock. Raises `OSError`, and `OperatorNeededError` on time-out.

    Raises `PreflightError` for a folder that another user may write. Only this user can open the
    lock's file: whoever reads it could hold the lock. A program that is started meanwhile does not
    inherit the lock.
    """
    is_new = not folder.is_dir()
    private_folder(folder)
    if is_new:
        sync(folder.parent)
    path = folder / ".lock"
    descriptor = open_private(path, os.O_RDWR)
    try:
        deadline_s = time.monotonic() + _LOCK_DEADLINE_S
        while not try_lock(descriptor):
            if time.monotonic() > deadline_s:
                raise OperatorNeededError(
                    f"another tuner process has held {path} for {_LOCK_DEADLINE_S:g} s; a driver "
                    f"call may hang: see who holds it with `fuser -v {path}`"
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)
