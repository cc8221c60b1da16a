"""The measurement log: what was measured is in this file, and synced, before any database hears it.

One file per study beside the store, one JSON object per line, behind its checksum. A line begins
with its newline, so that one torn by a power cut or a full disk does not spoil the next.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import URL

from tuner.host.durable_files import sync
from tuner.store.address import file_of
from tuner.store.log.log_records import LoggedResult, LogRecord, from_json, to_json

RESERVE_BYTES = 8 * 2**20  # given up for the last measurements when the disk is full
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHA_DIGITS = 16
_HEAD = '{"sha":"'
_MIDDLE = '","record":'


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `record` is None where it cannot be believed."""

    number: int  # from 1
    record: LogRecord | None


def log_folder_of(url: URL, state_folder: Path) -> Path:
    """Return where the logs of a store's studies are: beside its file, else in the state folder."""
    path = file_of(url)
    if path is not None:
        return path.absolute().with_name(f"{path.name}.measured")
    named = url.set(password=None).render_as_string()
    return state_folder / "measured" / hashlib.sha256(named.encode()).hexdigest()[:12]


def log_path_of(folder: Path, study: str) -> Path:
    """Return the log of a study, whose name may hold any character."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in study[:60])
    return folder / f"{safe}-{hashlib.sha256(study.encode()).hexdigest()[:8]}.jsonl"


class MeasurementLog:
    """Appends to the log of one study, for which the caller holds the study's lock."""

    def __init__(self, path: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.path = path
        self._reserve = path.with_suffix(".reserve")
        self._reserve_bytes = reserve_bytes

    def put_aside(self) -> Path | None:
        """Rename a log that another study of the same name has left; return its new name."""
        if not self.path.exists():
            return None
        names = (self.path.with_suffix(f".{n}.jsonl") for n in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        self.path.rename(aside)
        return aside

    def open(self) -> None:
        """Make the folder and set room aside for a full disk; raises `OSError` without room."""
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            sync(self.path.parent.parent)
        descriptor = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, self._reserve_bytes)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Give the reserve back."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def append(self, record: LogRecord) -> None:
        """Add a record: on the disk when this returns. Raises `OSError`, and nothing is then left.

        On a full disk the reserve is used, and then the raw records are left out.
        """
        line = encoded(record)
        try:
            self._write(line)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.close()
            try:
                self._write(line)
            except OSError:
                if not isinstance(record, LoggedResult) or record.encoded_raw is None:
                    raise
                self._write(encoded(replace(record, encoded_raw=None)))

    def _write(self, line: bytes) -> None:
        is_new = not self.path.exists()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                left = memoryview(line)
                while left:
                    left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            sync(self.path.parent)


def encoded(record: LogRecord) -> bytes:
    """Return the line of a record, its newline first."""
    text = json.dumps(to_json(record), separators=(",", ":"), allow_nan=False)
    return f"\n{_HEAD}{_sha(text)}{_MIDDLE}{text}}}".encode()


def decoded(line: bytes) -> LogRecord | None:
    """Return the record of a line without its newline, or None if it is torn or was changed."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    start = len(_HEAD) + _SHA_DIGITS + len(_MIDDLE)
    sha, body = text[len(_HEAD) : len(_HEAD) + _SHA_DIGITS], text[start:-1]
    if not (text.startswith(_HEAD) and text.endswith("}") and sha == _sha(body)):
        return None
    try:
        return from_json(json.loads(body))
    except (ValueError, KeyError, TypeError, IndexError):  # of a newer tuner
        return None


def read_log(path: Path) -> Iterator[LogLine]:
    """Yield the lines of a log from its beginning; raises `OSError`."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if content := line.rstrip(b"\n"):
                yield LogLine(number, decoded(content))


def latest(path: Path) -> Iterator[LogRecord]:
    """Yield the records of a log from its end, if there is one; what is torn is left out.

    Raises `OSError`.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        end = len(content)
        while end > 0:
            start = content.rfind(b"\n", 0, end)
            record = decoded(content[start + 1 : end])
            if record is not None:
                yield record
            end = start


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_SHA_DIGITS]
