"""State folder: where leases and the GPUs' original settings are kept, per user and for root."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path

from tuner.errors import PreflightError

_ROOTS = Path("/var/lib/tuner")


def state_folder() -> Path:
    """Return the state folder of this user.

    `TUNER_STATE_DIR`, else `/var/lib/tuner` for root, else `tuner` in the user's state folder.
    Raises `PreflightError` for a user without a home.
    """
    if asked := os.environ.get("TUNER_STATE_DIR"):
        return Path(asked)
    if os.geteuid() == 0:
        return _ROOTS
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    if home.is_absolute():  # a relative path must be ignored (XDG base directory specification)
        return home / "tuner"
    try:
        return Path.home() / ".local/state/tuner"
    except RuntimeError as error:  # as in a container with any user id
        raise PreflightError(
            "this user has no home folder for the record of the GPUs' settings; name a writable "
            "folder in TUNER_STATE_DIR"
        ) from error


def state_folders() -> tuple[Path, ...]:
    """Return every state folder that a run on this machine may have used, this user's first.

    A run without sudo uses the user's home (zeusd sets limits for it), a run with sudo root's
    folder. `sudo tuner gpu restore` must read both.
    """
    own = state_folder()
    if os.environ.get("TUNER_STATE_DIR"):
        return (own,)
    others = [_ROOTS]
    if os.geteuid() == 0 and (user := os.environ.get("SUDO_USER")):
        with suppress(KeyError):  # a user that this machine does not know
            others.append(Path(pwd.getpwnam(user).pw_dir) / ".local/state/tuner")
    seen = [other for other in others if other != own and _is_readable(other)]
    return (own, *seen)


def _is_readable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
