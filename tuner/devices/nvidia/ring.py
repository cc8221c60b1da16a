"""Ring buffer in shared memory: samples from the NVML process to the tuner.

Neither side ever waits for the other: the writer overwrites its oldest row, and the reader takes
what is there without a system call. One row is the time, then five numbers per GPU (energy J,
power W, SM clock MHz, temperature C, clock event bits), NaN where NVML gave none.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Sequence

COLUMNS = 5
CAPACITY = 1 << 17  # rows: 3.6 h at 10 Hz; memory is taken only as they are written
_HEADER = struct.Struct("=Q")


def ring_bytes(device_count: int) -> int:
    """Return the size of a ring for that many GPUs."""
    return _HEADER.size + CAPACITY * _row(device_count).size


def create_ring_file() -> int:
    """Return the descriptor of an empty file that lives in memory alone."""
    return os.memfd_create("tuner-power-samples")


def _row(device_count: int) -> struct.Struct:
    return struct.Struct(f"={1 + COLUMNS * device_count}d")


class RingWriter:
    """Writes rows; used by the NVML process."""

    def __init__(self, descriptor: int, device_count: int) -> None:
        self._row = _row(device_count)
        self._map = mmap.mmap(descriptor, ring_bytes(device_count))
        self._written = 0

    def append(self, time_s: float, values: Sequence[float | None]) -> None:
        """Write one row, then say that it is there."""
        row = [math.nan if value is None else value for value in values]
        at = _HEADER.size + (self._written % CAPACITY) * self._row.size
        self._row.pack_into(self._map, at, time_s, *row)
        self._written += 1
        _HEADER.pack_into(self._map, 0, self._written)


class RingReader:
    """Reads rows; used by the tuner."""

    def __init__(self, descriptor: int, device_count: int) -> None:
        os.ftruncate(descriptor, ring_bytes(device_count))
        self._row = _row(device_count)
        self._map = mmap.mmap(descriptor, ring_bytes(device_count))

    @property
    def written(self) -> int:
        """How many rows have been written so far."""
        return int(_HEADER.unpack_from(self._map)[0])

    def row(self, index: int) -> tuple[float, ...]:
        """Return one row: the time and the numbers of each GPU."""
        at = _HEADER.size + (index % CAPACITY) * self._row.size
        return self._row.unpack_from(self._map, at)

    def since(self, time_s: float) -> list[tuple[float, ...]]:
        """Return the rows from the last one before `time_s` on, as far as they are still there."""
        rows: list[tuple[float, ...]] = []
        last = self.written
        for index in reversed(range(max(0, last - CAPACITY), last)):
            rows.append(self.row(index))
            if rows[-1][0] < time_s:
                break
        # what the writer has reached meanwhile, and the row it may be at, is not what it was
        overwritten = self.written - CAPACITY + 1
        first = last - len(rows)
        return rows[::-1][max(0, overwritten - first) :]
