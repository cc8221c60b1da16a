"""Emulated GPUs in one memory-mapped file, which any process can map.

Any process sets the power limit and the SM clock of a GPU here, as a driver would, and reads what
the GPU draws; the emulated server that runs on it obeys, and writes. The file outlives them all, as
a driver's state does. What only one run uses has no name in any folder, and ends with it.

The file is words of eight bytes in the machine's own order, each written at once (u: whole number,
d: double, s: text that ends with a zero byte):

    0      u  magic number             1      u  GPUs; the words of GPU i begin at 8 + i * 16448

    0-11   s  UUID                    12-23   s  name
    24     u  default power limit, mW 25, 26  u  lowest and highest power limit, mW
    27, 28 u  lowest, highest SM clock, MHz                     29     u  step of SM clocks, MHz
    30     u  memory, bytes           31      d  power with nothing loaded, W
    32     u  power limit, mW         33      u  locked SM clock, MHz, 0 if it is not locked
    34     d  temperature without power, degrees C              35     d  kelvin per W above it
    40     u  pid of the server on it, 0 if there is none        41     u  its memory, bytes
    42     u  SM clock, MHz           43      u  1 while the power limit holds the clock down
    44     u  points written so far   64-     d  the newest 4,096 points, four words each:

a point is a time of `time.monotonic`, the energy used up to then (J), the seconds in which the GPU
computed up to then, and the power from then on (W) until a later point says otherwise. Energy and
seconds are straight between points. A point is the end of a step, and is written when the step
begins, so its time may be in the future.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.host.files.private import open_private
from tuner.host.process_stat import process_stat

POINTS = 4096
UPDATE_S = 0.1  # how often NVML's readings of power change
AVERAGE_S = 1.0  # what its averaged power is the mean of

_MAGIC = int.from_bytes(b"tunerGP1", "little")
_MAGIC_AT, _COUNT_AT, _HEADER_WORDS = 0, 1, 8
_TEXT_WORDS = 12
_UUID_AT, _NAME_AT = 0, 12
_DEFAULT_AT, _MIN_LIMIT_AT, _MAX_LIMIT_AT = 24, 25, 26
_MIN_CLOCK_AT, _MAX_CLOCK_AT, _CLOCK_STEP_AT = 27, 28, 29
_MEMORY_AT, _IDLE_AT = 30, 31
_LIMIT_AT, _LOCKED_AT = 32, 33
_COOLANT_AT, _KELVIN_PER_W_AT = 34, 35
_PID_AT, _USED_AT, _CLOCK_AT, _HELD_AT, _WRITTEN_AT = 40, 41, 42, 43, 44
_POINTS_AT, _POINT_WORDS = 64, 4
_POINT = struct.Struct("=4d")
_DEVICE_WORDS = _POINTS_AT + POINTS * _POINT_WORDS


@dataclass(frozen=True, slots=True)
class Facts:
    """The fixed properties of a GPU. `idle_w` is what it draws with nothing loaded.

    Without power it has the temperature of its coolant; 0 kelvin per W: nothing more is known.
    """

    name: str
    default_limit_w: float
    min_limit_w: float
    max_limit_w: float
    min_clock_mhz: int
    max_clock_mhz: int
    clock_step_mhz: int
    memory_bytes: int
    idle_w: float
    coolant_c: float = 45.0
    kelvin_per_w: float = 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a GPU is set to. `sm_clock_mhz` None: not locked."""

    power_limit_w: float
    sm_clock_mhz: int | None


class DeviceBusyError(Exception):
    """Another server runs on this GPU."""


class DeviceFile:
    """The file, mapped into memory; `devices` are its GPUs."""

    def __init__(self, path: Path) -> None:
        """Map a file that `create` made; raises `OSError`, or `ValueError` if it is none."""
        self.path = path
        self._descriptor: int | None = None
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)  # an empty file is a ValueError
        count = _device_count(self._map)
        if count is None:
            self._map.close()
            raise ValueError(f"{path} is no file of emulated GPUs")
        self.devices = tuple(Device(self._map, index) for index in range(count))

    @classmethod
    def create(cls, path: Path, facts: Facts, count: int) -> DeviceFile:
        """Write a file of `count` such GPUs at their default settings, with nothing on them."""
        path.unlink(missing_ok=True)  # a process that maps the old file keeps it
        descriptor = open_private(path, os.O_WRONLY)
        try:
            return cls._begun(descriptor, path, facts, count)
        finally:
            os.close(descriptor)

    @classmethod
    def create_unnamed(cls, facts: Facts, count: int) -> DeviceFile:
        """Write one that nobody can remove. Its path is for processes of this user, until `close`.

        See memfd_create(2).
        """
        descriptor = os.memfd_create("emulated-gpus")
        made = cls._begun(descriptor, Path(f"/proc/{os.getpid()}/fd/{descriptor}"), facts, count)
        made._descriptor = descriptor
        return made

    @classmethod
    def _begun(cls, descriptor: int, path: Path, facts: Facts, count: int) -> DeviceFile:
        os.truncate(descriptor, 8 * (_HEADER_WORDS + count * _DEVICE_WORDS))
        os.pwrite(descriptor, _MAGIC.to_bytes(8, "little") + count.to_bytes(8, "little"), 0)
        made = cls(path)
        for device in made.devices:
            device.begin(facts, f"GPU-{uuid.uuid4()}")
        return made

    def close(self) -> None:
        """Unmap the file; it stays where it is, if it has a name."""
        for device in self.devices:
            device.release()
        self._map.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Device:
    """One GPU of a file."""

    def __init__(self, whole: mmap.mmap, index: int) -> None:
        begin = 8 * (_HEADER_WORDS + index * _DEVICE_WORDS)
        self._bytes = memoryview(whole)[begin : begin + 8 * _DEVICE_WORDS]
        self._words = self._bytes.cast("Q")
        self._doubles = self._bytes.cast("d")

    def __len__(self) -> int:
        """Bytes that it takes."""
        return len(self._bytes)

    def release(self) -> None:
        """Let go of the mapping."""
        for view in (self._words, self._doubles, self._bytes):
            view.release()

    # -- what it is

    def begin(self, facts: Facts, unique: str) -> None:
        """Write what the GPU is; it has drawn idle power for as long as a reading looks back."""
        words = self._words
        self._put_text(_UUID_AT, unique)
        self._put_text(_NAME_AT, facts.name)
        words[_DEFAULT_AT] = words[_LIMIT_AT] = _milli(facts.default_limit_w)
        words[_MIN_LIMIT_AT] = _milli(facts.min_limit_w)
        words[_MAX_LIMIT_AT] = _milli(facts.max_limit_w)
        words[_MIN_CLOCK_AT] = facts.min_clock_mhz
        words[_MAX_CLOCK_AT] = words[_CLOCK_AT] = facts.max_clock_mhz
        words[_CLOCK_STEP_AT] = facts.clock_step_mhz
        words[_MEMORY_AT] = facts.memory_bytes
        self._doubles[_IDLE_AT] = facts.idle_w
        self._doubles[_COOLANT_AT] = facts.coolant_c
        self._doubles[_KELVIN_PER_W_AT] = facts.kelvin_per_w
        self.add(time.monotonic() - AVERAGE_S - UPDATE_S, 0.0, 0.0, facts.idle_w)

    @property
    def facts(self) -> Facts:
        """What the GPU is."""
        words = self._words
        return Facts(
            name=self._text(_NAME_AT),
            default_limit_w=words[_DEFAULT_AT] / 1e3,
            min_limit_w=words[_MIN_LIMIT_AT] / 1e3,
            max_limit_w=words[_MAX_LIMIT_AT] / 1e3,
            min_clock_mhz=words[_MIN_CLOCK_AT],
            max_clock_mhz=words[_MAX_CLOCK_AT],
            clock_step_mhz=words[_CLOCK_STEP_AT],
            memory_bytes=words[_MEMORY_AT],
            idle_w=self._doubles[_IDLE_AT],
            coolant_c=self._doubles[_COOLANT_AT],
            kelvin_per_w=self._doubles[_KELVIN_PER_W_AT],
        )

    @property
    def uuid(self) -> str:
        """The GPU's name for itself."""
        return self._text(_UUID_AT)

    # -- what it is set to

    @property
    def settings(self) -> Settings:
        """What it is set to, within what the GPU can do."""
        words = self._words
        limit_mw = min(max(words[_LIMIT_AT], words[_MIN_LIMIT_AT]), words[_MAX_LIMIT_AT])
        locked_mhz: int = words[_LOCKED_AT]
        if locked_mhz:
            locked_mhz = min(max(locked_mhz, words[_MIN_CLOCK_AT]), words[_MAX_CLOCK_AT])
        return Settings(limit_mw / 1e3, locked_mhz or None)

    def set(self, settings: Settings) -> None:
        """Set it; the server obeys soon after."""
        self._words[_LIMIT_AT] = _milli(settings.power_limit_w)
        self._words[_LOCKED_AT] = settings.sm_clock_mhz or 0

    # -- what the server on it says

    def take(self, pid: int, memory_bytes: int) -> None:
        """Say which process is on it; raises `DeviceBusyError` if another one is."""
        if (other := self.pid) is not None and other != pid:
            raise DeviceBusyError(f"process {other} runs on {self.uuid}")
        self._words[_USED_AT] = memory_bytes
        self._words[_PID_AT] = pid

    def leave(self) -> None:
        """Say that nothing is on it any more, from the last point or now on."""
        end_s = max(time.monotonic(), self._point(self._words[_WRITTEN_AT] - 1)[0])
        self._words[_PID_AT] = self._words[_USED_AT] = 0
        self.show(self.facts.max_clock_mhz, held_back=False)
        self.add(end_s, self.energy_j(end_s), self.busy_s(end_s), self.facts.idle_w)

    def show(self, clock_mhz: int, *, held_back: bool) -> None:
        """Say at which SM clock it runs, and whether its power limit holds that down."""
        self._words[_CLOCK_AT] = clock_mhz
        self._words[_HELD_AT] = int(held_back)

    def add(self, time_s: float, energy_j: float, busy_s: float, after_w: float) -> None:
        """Write a point, then say that it is there."""
        written = self._words[_WRITTEN_AT]
        at = 8 * (_POINTS_AT + written % POINTS * _POINT_WORDS)
        _POINT.pack_into(self._bytes, at, time_s, energy_j, busy_s, after_w)
        self._words[_WRITTEN_AT] = written + 1

    # -- what it does

    @property
    def pid(self) -> int | None:
        """The process of the server on it, None if there is none, or it has died."""
        pid = self._words[_PID_AT]
        return pid if pid and process_stat(pid) is not None else None

    @property
    def memory_used_bytes(self) -> int:
        """How much of its memory is taken."""
        return 0 if self.pid is None else self._words[_USED_AT]

    @property
    def clock_mhz(self) -> int:
        """SM clock of the step under way, or of the last one."""
        return self._words[_CLOCK_AT]

    def energy_j(self, time_s: float) -> float:
        """Energy used up to an instant; as far back as there are points."""
        before, after = self._around(time_s)
        if after is None:
            return before[1] + before[3] * (time_s - before[0])
        return before[1] + (after[1] - before[1]) * _share(before, after, time_s)

    def busy_s(self, time_s: float) -> float:
        """For how long it computed up to an instant."""
        before, after = self._around(time_s)
        if after is None:
            return before[2]
        return before[2] + (after[2] - before[2]) * _share(before, after, time_s)

    def mean_power_w(self, time_s: float, over_s: float) -> float:
        """Power as NVML reads it: the mean of so many seconds, updated each tenth of a second.

        Its average reads `AVERAGE_S` back, its instant power as far as an update (`UPDATE_S`).
        """
        end_s = math.floor(time_s / UPDATE_S) * UPDATE_S
        return (self.energy_j(end_s) - self.energy_j(end_s - over_s)) / over_s

    def temperature_c(self, time_s: float) -> float:
        """Temperature as NVML reads it: the one in balance with the averaged power.

        How long a card takes to warm up is in no data that we know.
        """
        facts = self.facts
        return facts.coolant_c + facts.kelvin_per_w * self.mean_power_w(time_s, AVERAGE_S)

    # -- points

    def _around(self, time_s: float) -> tuple[_Point, _Point | None]:
        """Return the points before and after an instant; what is older than all is at the oldest.

        The one after is None where the last one is before.
        """
        later: _Point | None = None
        for point in self._newest_first():
            if point[0] <= time_s:
                return point, later
            later = point
        assert later is not None
        return later, later

    def _newest_first(self) -> Iterator[_Point]:
        written = self._words[_WRITTEN_AT]
        for index in range(written - 1, max(written - POINTS, -1), -1):  # the oldest may go now
            yield self._point(index)

    def _point(self, index: int) -> _Point:
        at = 8 * (_POINTS_AT + index % POINTS * _POINT_WORDS)
        time_s, energy_j, busy_s, after_w = _POINT.unpack_from(self._bytes, at)
        return time_s, energy_j, busy_s, after_w

    def _put_text(self, at: int, text: str) -> None:
        room = 8 * _TEXT_WORDS
        encoded = text.encode()[: room - 1].ljust(room, b"\0")
        self._bytes[8 * at : 8 * at + room] = encoded

    def _text(self, at: int) -> str:
        raw = bytes(self._bytes[8 * at : 8 * (at + _TEXT_WORDS)])
        return raw.partition(b"\0")[0].decode(errors="replace")


_Point = tuple[float, float, float, float]


def _share(before: _Point, after: _Point, time_s: float) -> float:
    """Return how far between two points an instant is."""
    length_s = after[0] - before[0]
    return (time_s - before[0]) / length_s if length_s > 0 else 0.0


def _device_count(whole: mmap.mmap) -> int | None:
    """Return how many GPUs a file has, None if it is not such a file."""
    if len(whole) < 8 * _HEADER_WORDS or int.from_bytes(whole[:8], "little") != _MAGIC:
        return None
    count = int.from_bytes(whole[8 * _COUNT_AT : 8 * _COUNT_AT + 8], "little")
    return count if len(whole) == 8 * (_HEADER_WORDS + count * _DEVICE_WORDS) else None


def _milli(watts: float) -> int:
    return round(watts * 1e3)
