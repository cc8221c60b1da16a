"""The process that talks to NVML: `python -m tuner.devices.nvidia.agent RING_DESCRIPTOR ACCESS`.

A lost GPU can hang an NVML call in the kernel for good; here it takes down nobody else. Commands
come as JSON lines on stdin, each is answered by one on stdout; samples go into a ring in shared
memory. The process ends when its stdin does, even in the middle of a call, and leaves limits alone.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

from tuner.devices.limit_control import Access
from tuner.devices.nvidia.faults import NvmlFault
from tuner.devices.nvidia.nvml_library import (
    NvmlDevice,
    NvmlFaultError,
    count_devices,
    device_at,
    open_device,
    open_devices,
    open_library,
)
from tuner.devices.nvidia.profiles.power_profiles import power_profiles, set_power_profiles
from tuner.devices.nvidia.ring import COLUMNS, RingWriter

LASTS_S = 10.0  # an error that has not passed by then is the GPU's state
MOST_TIME = 0.2  # of a core: a reading of an H200's energy counter takes 4 ms of it, the rest none
LONGEST_PERIOD_S = 0.5  # below the gap that makes a window invalid


class Sampler:
    """Samples some GPUs at a steady rate; a slow sample is not followed by a burst.

    Where a sample takes more than `MOST_TIME`, every second, third ... one is taken, up to
    `LONGEST_PERIOD_S`: the instants stay in phase with a counter that changes ten times a second.
    """

    def __init__(self, devices: Sequence[NvmlDevice], ring: RingWriter, period_s: float) -> None:
        self._devices = devices
        self._ring = ring
        self._period_s = period_s
        self._due_s = time.monotonic()
        self._failing_since_s: dict[str, float] = {}

    def wait_s(self) -> float:
        """Return for how long nothing is to be done."""
        return max(0.0, self._due_s - time.monotonic())

    def sample(self) -> None:
        """Take one sample if it is due. Raises `NvmlFaultError`, for what may pass if it lasts."""
        began_s, began_cpu_s = time.monotonic(), time.thread_time()
        if began_s < self._due_s:
            return
        values: list[float | None] = []
        for device in self._devices:
            values.extend(self._sample_of(device, began_s))
        ended_s = time.monotonic()
        # each GPU is read at its own instant; the middle is off by half the reading at most
        self._ring.append((began_s + ended_s) / 2, values)
        self._due_s = max(self._due_s + self._pause_s(time.thread_time() - began_cpu_s), ended_s)

    def _pause_s(self, cost_s: float) -> float:
        rarest = max(1, round(LONGEST_PERIOD_S / self._period_s))
        periods = math.ceil(cost_s / MOST_TIME / self._period_s)
        return min(max(periods, 1), rarest) * self._period_s

    def _sample_of(self, device: NvmlDevice, now_s: float) -> Sequence[float | None]:
        """Return what was read, nothing but None while a passing error lasts."""
        try:
            read = device.sample()
        except NvmlFaultError as error:
            since_s = self._failing_since_s.setdefault(device.uuid, now_s)
            if error.fault is NvmlFault.PASSING and now_s - since_s < LASTS_S:
                return (None,) * COLUMNS
            if error.fault is NvmlFault.PASSING:
                message = f"{error}, for {now_s - since_s:.0f} s"
                raise NvmlFaultError(NvmlFault.BROKEN, message) from error
            raise
        self._failing_since_s.pop(device.uuid, None)
        return read


class Agent:
    """Carries out commands, and samples between them."""

    def __init__(self, ring_descriptor: int, access: Access) -> None:
        self._ring_descriptor = ring_descriptor
        self._access = access
        self._devices: dict[str, NvmlDevice] = {}
        self.sampler: Sampler | None = None
        self._reading: dict[str, Callable[..., Any]] = {
            "count": self._count,
            "open": self._open,
            "sample": self._sample,
            "state": lambda uuid: asdict(self._device(uuid).state()),
            "persistence_mode": lambda uuid: self._device(uuid).persistence_mode(),
            "power_profiles": lambda uuid: power_profiles(self._device(uuid)),
            "memory_used_bytes": lambda uuid: self._device(uuid).memory_used_bytes(),
            "await_power_limit": lambda uuid, watts: self._device(uuid).await_power_limit(watts),
            "nearest_sm_clock": lambda uuid, mhz: self._device(uuid).nearest_sm_clock(mhz),
        }
        self._setting: dict[str, Callable[..., Any]] = {
            "set_power_limit": lambda uuid, watts: self._device(uuid).set_power_limit(watts),
            "set_power_profiles": lambda uuid, names: set_power_profiles(self._device(uuid), names),
            "lock_sm_clock": lambda uuid, mhz: self._device(uuid).lock_sm_clock(mhz),
            "unlock_sm_clock": lambda uuid: self._device(uuid).unlock_sm_clock(),
        }

    def carry_out(self, command: str, arguments: dict[str, Any]) -> Any:
        """Return the command's answer; raises `NvmlFaultError`."""
        if command in self._reading:
            return self._reading[command](**arguments)
        if self._access is not Access.SET:  # the one place that everything which sets comes by
            raise NvmlFaultError(
                NvmlFault.READ_ONLY, f"the GPUs are opened read-only, so {command} is refused"
            )
        return self._setting[command](**arguments)

    def _count(self) -> int:
        open_library()
        return count_devices()

    def _open(self, uuid: str | None, index: int | None) -> dict[str, Any]:
        driver = open_library()
        if index is not None:
            devices: Sequence[NvmlDevice] = (device_at(index),)
        else:
            devices = open_devices() if uuid is None else open_device(uuid)
        self._devices = {device.uuid: device for device in devices}
        listed = [
            {"index": d.index, "uuid": d.uuid, "name": d.name, "mig_enabled": d.mig_enabled()}
            for d in devices
        ]
        return {"driver": driver, "devices": listed}

    def _device(self, uuid: str) -> NvmlDevice:
        try:
            return self._devices[uuid]
        except KeyError:
            raise NvmlFaultError(NvmlFault.REFUSED, f"this machine has no GPU {uuid}") from None

    def _sample(self, uuids: list[str], period_s: float) -> None:
        devices = [self._device(uuid) for uuid in uuids]
        ring = RingWriter(self._ring_descriptor, len(devices))
        self.sampler = Sampler(devices, ring, period_s)
        self.sampler.sample()


def serve(agent: Agent, commands: queue.SimpleQueue[bytes], answers: BinaryIO) -> None:
    """Answer commands and take samples for ever."""
    while True:
        try:
            wait_s = None if agent.sampler is None else agent.sampler.wait_s()
            line = commands.get(timeout=wait_s)
        except queue.Empty:
            line = b""
        if line:
            message = json.loads(line)
            answer = _answer(agent.carry_out, message["command"], message["arguments"])
            _send(answers, {"id": message["id"], **answer})
        elif agent.sampler is not None:
            answer = _answer(agent.sampler.sample)
            if "fault" in answer:
                agent.sampler = None  # said once; the tuner stops at it
                _send(answers, {"id": None, **answer})


def _answer(work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    try:
        return {"answer": work(*arguments)}
    except NvmlFaultError as error:
        return {"fault": error.fault, "message": str(error)}
    except Exception as error:  # noqa: BLE001 - the tuner must hear of it, not of an ended process
        message = f"the NVML process cannot do this ({type(error).__name__}: {error})"
        return {"fault": NvmlFault.UNSUPPORTED, "message": message}


def _send(answers: BinaryIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def _read_commands(commands: queue.SimpleQueue[bytes]) -> None:
    """Pass lines on until the tuner is gone; then end, even in the middle of an NVML call."""
    for line in sys.stdin.buffer:
        commands.put(line)
    os._exit(0)


def main() -> None:
    """Serve the process that holds the other end of stdin."""
    # signals to the group are for the tuner, which may still need limits put back
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not garble the answers
    commands: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_commands, args=(commands,), daemon=True).start()
    try:
        serve(Agent(int(sys.argv[1]), Access(sys.argv[2])), commands, answers)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
