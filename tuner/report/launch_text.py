"""What is being launched, as far as its log tells: where the log is, and its last line."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tuner.host.redaction import redacted

_TAIL_BYTES = 4096
_MOST_CHARACTERS = 100


def launch_text(folder: Path, since_s: float) -> str | None:
    """Return the newest server log in `folder`, and the last line in it.

    None if none was written to since `since_s` (seconds since 1970).
    """
    newest: tuple[float, Path] | None = None
    with suppress(OSError):
        for path in folder.glob("*.log"):
            written_s = path.stat().st_mtime
            if written_s >= since_s and (newest is None or written_s > newest[0]):
                newest = (written_s, path)
    if newest is None:
        return None
    line = _last_line(newest[1])
    return f"log {newest[1]}" + (f": {line}" if line else "")


def _last_line(path: Path) -> str:
    """Return the last line that has ended, without secrets, shortened; empty if unreadable."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    line = next((text for text in reversed(lines) if text.strip()), "")
    shown = " ".join(redacted(line).split())
    return shown if len(shown) <= _MOST_CHARACTERS else f"{shown[: _MOST_CHARACTERS - 1]}…"
