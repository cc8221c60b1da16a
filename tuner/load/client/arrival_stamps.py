"""Kernel receive timestamps (SO_TIMESTAMPNS): when bytes arrived, not when they were read."""

from __future__ import annotations

import socket
import struct
import sys
import time

# Linux's SO_TIMESTAMPNS (and SCM_TIMESTAMPNS, the same number); Python has no name for it. With
# TCP it is the time of the newest of the bytes that a read returns.
_STAMPS = 35
_STAMP = struct.Struct("@ll")  # struct timespec
_ANCILLARY_BYTES = 64
# The wall clock, in which the kernel stamps, is slewed by at most 500 µs/s.
_CLOCKS_COMPARED_S = 0.1
_SUSPECT_S = 0.5  # what arrived is read at once, unless the client is far behind
_OLDEST_S = 10.0
_TRIES = 5


class WallClock:
    """Turns wall-clock stamps into times of `time.monotonic`."""

    def __init__(self) -> None:
        self._ahead_ns = 0
        self._valid_until_s = float("-inf")

    def monotonic_s(self, stamp_ns: int) -> float:
        """Return the monotonic time of wall-clock `stamp_ns`, s, at most now.

        A stamp from long ago is of a clock that was set since: it counts as now.
        """
        now_s = time.monotonic()
        if now_s > self._valid_until_s:
            self._compare()
            self._valid_until_s = now_s + _CLOCKS_COMPARED_S
        arrived_s = (stamp_ns - self._ahead_ns) * 1e-9
        if now_s - arrived_s > _SUSPECT_S:
            self._compare()
            arrived_s = (stamp_ns - self._ahead_ns) * 1e-9
        return now_s if now_s - arrived_s > _OLDEST_S else min(now_s, arrived_s)

    def _compare(self) -> None:
        """Read both clocks a few times: between two readings this process may be put aside."""
        found = []
        for _ in range(_TRIES):
            before_ns = time.monotonic_ns()
            wall_ns = time.time_ns()
            after_ns = time.monotonic_ns()
            found.append((after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2))
        self._ahead_ns = min(found)[1]


class ArrivalSocket(socket.socket):
    """A TCP socket that tells when what it receives had arrived.

    Where the kernel does not tell (not Linux), that is when it was read.
    """

    __slots__ = ("_clock",)

    def __init__(self, clock: WallClock, family: int, kind: int, protocol: int) -> None:
        super().__init__(family, kind, protocol)
        self._clock = clock
        if sys.platform == "linux":
            self.setsockopt(socket.SOL_SOCKET, _STAMPS, 1)

    def receive(self, size: int) -> tuple[bytes, float]:
        """Return up to `size` bytes, and the monotonic time of the newest one's arrival, s."""
        data, ancillary, _, _ = self.recvmsg(size, _ANCILLARY_BYTES)
        for level, kind, stamp in ancillary:
            if kind == _STAMPS and level == socket.SOL_SOCKET and len(stamp) == _STAMP.size:
                seconds, ns = _STAMP.unpack(stamp)
                return data, self._clock.monotonic_s(seconds * 1_000_000_000 + ns)
        return data, time.monotonic()
