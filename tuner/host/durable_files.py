"""Atomic file writes: a file is replaced completely or not at all, optionally synced to disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tuner.host.files.private import open_private


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a new file beside `path`; rename it to `path` on success, else remove it.

    It has the suffix of `path`, and `mode` less the umask. Its name is always the same, so the
    next write removes the leftover of a killed process. It is written by its descriptor: a link
    that somebody puts in its place meanwhile is not followed. Nothing is synced: after a power cut
    the file may be the old one or empty. What stands under /dev or /proc is written to as it is:
    root would rename its file over `/dev/stdout`, which is a link to a file wherever a shell
    redirects to one. Raises `OSError`.
    """
    if _is_of_the_kernel(path):
        with path.open("ab") as file:
            yield file
        return
    new = path.with_name(f".partial-{path.name}")
    new.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # by its name, which is the file's then
        with open(new, "w+b", opener=lambda name, _: os.open(name, flags, mode)) as file:
            yield file
        new.replace(path)
    except BaseException:
        with suppress(OSError):  # if it could not be created, it cannot be removed
            new.unlink(missing_ok=True)
        raise


def _is_of_the_kernel(path: Path) -> bool:
    folder = (
        path.absolute().parent.resolve()
    )  # /dev/fd is a link; /dev/shm has files like any other
    return (folder == Path("/dev") or folder.parts[1:2] == ("proc",)) and path.exists()


def write_durably(path: Path, content: str) -> None:
    """Replace the file atomically and sync it to disk.

    Raises `OSError`, and `PreflightError` for a link in its place; the old file at `path` is then
    unchanged.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        descriptor = open_private(temporary, os.O_WRONLY | os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
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
    """Remove the file if it exists, and sync that to disk."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Sync a file's content, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
