"""Framing of an HTTP/1.1 answer: its head, and where its body ends; from bytes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

_END_OF_LINE = b"\r\n"
_HEX = b"0123456789abcdefABCDEF"
_MAX_LINE_BYTES = 2**16
_MAX_DIGITS = 16
_BODILESS = (204, 304)


class HttpError(Exception):
    """The answer broke off, or is no HTTP; says how."""


class Framing(Protocol):
    """Takes the bytes of a body off the wire.

    `ended` says whether it was complete, `has_excess` whether more came than belongs to it.
    """

    ended: bool
    has_excess: bool

    def feed(self, data: bytes) -> bytes:
        """Return what is of the body; raises `HttpError` for what is not framed as announced."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """What matters of a head: the status, how the body is framed, if the connection stays open."""

    status: int
    framing: Framing
    keeps_connection: bool


class Chunked:
    """A body in chunks, each after its size."""

    __slots__ = ("_at_end_of_chunk", "_in_trailer", "_left", "_rest", "ended", "has_excess")

    def __init__(self) -> None:
        self.ended = self.has_excess = False
        self._rest = b""  # a line that is not complete
        self._left = 0  # bytes of this chunk that are to come
        self._at_end_of_chunk = self._in_trailer = False

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the chunks in `data`, also of one that is not complete."""
        if not (self._rest or self._left or self._at_end_of_chunk or self._in_trailer):
            whole = _whole_chunk(data)
            if whole is not None:  # as most is
                return whole
        data = self._rest + data
        found: list[bytes] = []
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                found.append(data[at : at + self._left])
                at += len(found[-1])
                self._left -= len(found[-1])
                continue
            end = data.find(_END_OF_LINE, at)
            if end < 0:
                if len(data) - at > _MAX_LINE_BYTES:
                    raise HttpError("a line without an end between two chunks")
                break
            self._read_line(data[at:end])
            at = end + 2
        self._rest = data[at:]
        self.has_excess = self.ended and bool(self._rest)
        return found[0] if len(found) == 1 else b"".join(found)

    def _read_line(self, line: bytes) -> None:
        if self._in_trailer:
            self.ended = not line
        elif self._at_end_of_chunk:
            if line:
                raise HttpError("a chunk that is longer than its size")
            self._at_end_of_chunk = False
        else:
            self._left = _chunk_size(line)
            self._at_end_of_chunk = self._left > 0
            self._in_trailer = not self._left


class Sized:
    """A body of a known length."""

    __slots__ = ("_left", "ended", "has_excess")

    def __init__(self, size: int) -> None:
        self._left = size
        self.ended = size == 0
        self.has_excess = False

    def feed(self, data: bytes) -> bytes:
        """Return what is of the body."""
        found = data[: self._left]
        self._left -= len(found)
        self.ended = self._left == 0
        self.has_excess = len(found) < len(data)
        return found


class UntilClosed:
    """A body that ends with the connection."""

    __slots__ = ("ended", "has_excess")

    def __init__(self) -> None:
        self.ended = self.has_excess = False

    def feed(self, data: bytes) -> bytes:
        """Return all of it."""
        return data


def read_head(head: bytes) -> Head:
    """Read a head without its blank line; raises `HttpError`."""
    first, *lines = head.split(_END_OF_LINE)
    version, _, rest = first.partition(b" ")
    status = rest[:3]
    if version not in (b"HTTP/1.0", b"HTTP/1.1") or not (len(status) == 3 and status.isdigit()):
        raise HttpError(f"this is not HTTP: {first[:40]!r}")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise HttpError(f"this is no field of a head: {line[:40]!r}")
        known, value = fields.get(name.strip().lower()), value.strip()
        fields[name.strip().lower()] = value if known is None else known + b"," + value
    says = fields.get(b"connection", b"").lower()
    keeps = b"keep-alive" in says if version == b"HTTP/1.0" else b"close" not in says
    framing = _framing(int(status), fields)
    return Head(int(status), framing, keeps and not isinstance(framing, UntilClosed))


def _framing(status: int, fields: dict[bytes, bytes]) -> Framing:
    if status in _BODILESS:
        return Sized(0)
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        return Chunked()
    length = fields.get(b"content-length")
    if length is None:
        return UntilClosed()
    if not length.isdigit() or len(length) > _MAX_DIGITS:
        raise HttpError(f"this is no length of a body: {length[:40]!r}")
    return Sized(int(length))


def _whole_chunk(data: bytes) -> bytes | None:
    """Return the body of data that is one chunk from end to end; None for all else."""
    begin = data.find(_END_OF_LINE) + 2
    end = len(data) - 2
    if not 2 < begin < end or data[end:] != _END_OF_LINE:
        return None
    try:
        size = int(data[: begin - 2], 16)
    except ValueError:
        return None
    return data[begin:end] if size == end - begin else None


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()  # what follows is an extension
    if not digits or digits.strip(_HEX) or len(digits) > _MAX_DIGITS:
        raise HttpError(f"this is no size of a chunk: {line[:40]!r}")
    return int(digits, 16)
