"""Leave out of vLLM's libraries the GPU code that one kind of GPU never runs.

A CUDA library carries its kernels once for each architecture, in the section `.nv_fatbin`: a
sequence of containers (magic 0xBA55ED50), each with entries of PTX (kind 1) or machine code (kind
2) for one architecture. The driver picks an entry by its header, so the bytes of the others may be
zero: the library keeps its size and its addresses, and compresses to a tenth.
The layout is NVIDIA's own and not published; see the header comments of cuda-fatdump and
https://github.com/VivekPanyam/cudaparsers for what is known.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_CONTAINER_MAGIC = 0xBA55ED50
MACHINE_CODE = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One architecture's code of one source file, at `start:end` of the library."""

    kind: int
    architecture: int
    start: int
    end: int


def code_section(library: bytes) -> tuple[int, int] | None:
    """Return where `.nv_fatbin` lies in a 64-bit ELF file, or None if it has none."""
    (table,) = struct.unpack_from("<Q", library, 0x28)
    size, count, names = struct.unpack_from("<HHH", library, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", library, table + i * size) for i in range(count)]
    names_at = headers[names][4]
    for name, _, _, _, offset, length in headers:
        start = names_at + name
        if library[start : library.index(b"\0", start)] == b".nv_fatbin":
            return offset, offset + length
    return None


def entries(library: bytes, start: int, end: int) -> Iterator[Entry]:
    """Yield every entry of every container in the section."""
    at = start
    while at < end - 16:
        magic, _, header = struct.unpack_from("<IHH", library, at)
        if magic != _CONTAINER_MAGIC:
            at += 8  # padding between containers
            continue
        (length,) = struct.unpack_from("<Q", library, at + 8)
        at += header
        stop = at + length
        while at < stop:
            kind, _, entry_header, size = struct.unpack_from("<HHIQ", library, at)
            (architecture,) = struct.unpack_from("<I", library, at + 28)
            at += entry_header
            yield Entry(kind, architecture, at, at + size)
            at += size


def keep_only(path: Path, wanted: Callable[[Entry, bytes], bool]) -> None:
    """Zero every entry of a library that is not wanted."""
    library = bytearray(path.read_bytes())
    section = code_section(library)
    if section is None:
        return
    for entry in list(entries(library, *section)):
        if not wanted(entry, bytes(library[entry.start : entry.end])):
            library[entry.start : entry.end] = bytes(entry.end - entry.start)
    path.write_bytes(library)
