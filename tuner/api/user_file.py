"""The user's file of settings: where it is, and what it says."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from tuner.errors import UsageError
from tuner.host.files.trusted import distrust_of

_MOST_BYTES = 1_000_000


def user_file() -> Path | None:
    """Return the path of this user's settings, or None where there are none.

    `TUNER_CONFIG`, where an empty value means none, else `tuner/config.toml` in `XDG_CONFIG_HOME`
    or `~/.config`. Raises `UsageError` if `TUNER_CONFIG` names no file.
    """
    asked = os.environ.get("TUNER_CONFIG")
    if asked == "":
        return None
    if asked is not None:
        path = Path(asked).expanduser()
        if not path.is_file():
            raise UsageError(f"TUNER_CONFIG: there is no file {path}")
        return path
    folder = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        home = folder if folder.is_absolute() else Path.home() / ".config"
    except RuntimeError:  # a user without a home
        return None
    path = home / "tuner" / "config.toml"
    try:
        return path if path.is_file() else None
    except OSError:
        return None


def read_user_file(path: Path) -> dict[str, Any]:
    """Return what the file says; raises `UsageError` if it cannot be read, or others may write it.

    A setting can name the program to start, so a file that another user could have written is
    refused.
    """
    try:
        if (why := distrust_of(path)) is not None:
            raise UsageError(f"settings are not read from {path}: {why.reason}; run `{why.fix}`")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UsageError(f"{path}: settings need no more than {_MOST_BYTES:,} bytes")
        return tomllib.loads(content.decode())
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: this is not TOML: {error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: this is not UTF-8, as TOML has to be") from None
    except (OSError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it nests too deeply"
        raise UsageError(f"{path} cannot be read: {reason}") from None
