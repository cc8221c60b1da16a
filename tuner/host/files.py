"""Small files that survive a crash of the machine, and a lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuner.errors import OperatorNeededError, PreflightError

_ROOTS = Path("/var/lib/tuner")
_LOCK_DEADLINE_S = 60.0  # longer than a GPU that does not answer is waited for under it
_POLL_S = 0.02


def state_folder() -> Path:
    """Return where what was found on this machine is kept.

    `TUNER_STATE_DIR`, else `/var/lib/tuner` for root, else `tuner` in the user's state folder.
    Raises `PreflightError` for a user without a home.
    """
    if asked := os.environ.get("TUNER_STATE_DIR"):
        return Path(asked)
    if os.geteuid() == 0:
        return _ROOTS
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    if home.is_absolute():  # else to be ignored, says the XDG base directory specification
        return home / "tuner"
    try:
        return Path.home() / ".local/state/tuner"
    except RuntimeError as error:  # as in a container with any user id
        raise PreflightError(
            "this user has no home folder to keep what is found on the GPUs in; name a writable "
            "folder in TUNER_STATE_DIR"
        ) from error


def state_folders() -> tuple[Path, ...]:
    """Return every folder in which a run on this machine may have left what it found.

    The one of this user first. A run without sudo keeps it in the user's home (zeusd sets limits
    for it), a run with sudo in root's place: `sudo tuner gpu restore` has to see both.
    """
    own = state_folder()
    if os.environ.get("TUNER_STATE_DIR"):
        return (own,)
    others = [_ROOTS]
    if os.geteuid() == 0 and (user := os.environ.get("SUDO_USER")):
        with suppress(KeyError):  # a user that is not known here
            others.append(Path(pwd.getpwnam(user).pw_dir) / ".local/state/tuner")
    seen = [other for other in others if other != own and _is_readable(other)]
    return (own, *seen)


def _is_readable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)


def write_durably(path: Path, content: str) -> None:
    """Replace the file at once or not at all; when this returns, it is on the disk.

    Raises `OSError`; what was at `path` is then still there.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def remove_durably(path: Path) -> None:
    """Remove the file if it is there; when this returns, that is on the disk."""
    path.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and hold its lock. Raises `OSError`, and `OperatorNeededError` after a while.

    A program that is executed meanwhile does not inherit the lock.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline_s = time.monotonic() + _LOCK_DEADLINE_S
        while not _try_lock(descriptor):
            if time.monotonic() > deadline_s:
                raise OperatorNeededError(
                    f"another tuner process has held {path} for {_LOCK_DEADLINE_S:g} s; a driver "
                    f"call may hang: see who holds it with `fuser -v {path}`"
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
