"""Atomic file writes: a file is replaced whole or not at all, and on the disk where that counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` that takes its name if all goes well, and is gone if not.

    It ends as `path` does. Its name is always the same, so what a killed process left is
    overwritten by the next one. Nothing is synced: after a power cut the file may be the old one,
    or empty. Raises `OSError`.
    """
    new = path.with_name(f".partial-{path.name}")
    try:
        yield new
        new.replace(path)
    except BaseException:
        with suppress(OSError):  # where it could not be made it cannot be removed
            new.unlink(missing_ok=True)
        raise


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
    sync(path.parent)


def remove_durably(path: Path) -> None:
    """Remove the file if it is there; when this returns, that is on the disk."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
