"""Measurement log: a write-ahead log of results, synced before any database is written.

One file per study beside the store, one JSON object per line after its checksum. A line starts with
its newline, so that a line torn by a power cut or a full disk does not damage the next one.
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
from tuner.host.files.private import open_private, private_folder
from tuner.store.address import file_of
from tuner.store.log.log_records import LoggedResult, LogRecord, from_json, to_json

RESERVE_BYTES = 8 * 2**20  # freed for the last measurements when the disk is full
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHA_DIGITS = 16
_HEAD = '{"sha":"'
_MIDDLE = '","record":'


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `record` is None if it is torn or its checksum is wrong."""

    number: int  # from 1
    record: LogRecord | None


def log_folder_of(url: URL, state_folder: Path) -> Path:
    """Return the folder of a store's logs: beside its file, else in the state folder."""
    path = file_of(url)
    if path is not None:
        return path.absolute().with_name(f"{path.name}.measured")
    named = url.set(password=None).render_as_string()
    return state_folder / "measured" / hashlib.sha256(named.encode()).hexdigest()[:12]


def log_path_of(folder: Path, study: str) -> Path:
    """Return the log file of a study, whose name may contain any character."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in study[:60])
    return folder / f"{safe}-{hashlib.sha256(study.encode()).hexdigest()[:8]}.jsonl"


class MeasurementLog:
    """Appends to the log of one study; the caller must hold the study's lock."""

    def __init__(self, path: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.path = path
        self._reserve = path.with_suffix(".reserve")
        self._reserve_bytes = reserve_bytes

    def put_aside(self) -> Path | None:
        """Rename the log of an earlier study of the same name; return its new name."""
        if not self.path.exists():
            return None
        names = (self.path.with_suffix(f".{n}.jsonl") for n in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        self.path.rename(aside)
        return aside

    def open(self) -> None:
        """Make the folder and reserve space for a full disk; raises `OSError` without space."""
        self._make_folder()
        descriptor = open_private(self._reserve, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, self._reserve_bytes)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Free the reserved space."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def append(self, record: LogRecord) -> None:
        """Append a record and sync it to disk. Raises `OSError`; then nothing is appended.

        On a full disk it uses the reserved space, then leaves the raw records out.
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

    def _make_folder(self) -> None:
        is_new = not self.path.parent.is_dir()
        private_folder(self.path.parent)
        if is_new:
            sync(self.path.parent.parent)

    def _write(self, line: bytes) -> None:
        is_new = not self.path.exists()
        self._make_folder()  # again: somebody may have removed it in mid-run
        descriptor = open_private(self.path, os.O_WRONLY | os.O_APPEND)
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
    """Return the record of a line without its newline; None if torn or changed."""
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
    """Yield the lines of a log from its start; raises `OSError`."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if content := line.rstrip(b"\n"):
                yield LogLine(number, decoded(content))


def latest(path: Path) -> Iterator[LogRecord]:
    """Yield the records of a log, if there is one, from its end; skip torn lines.

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
