"""The tuner's end of the NVML process: every answer has a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from tuner.devices.device_state import ListedDevice
from tuner.devices.limit_control import Access
from tuner.devices.nvidia.faults import NvmlFault, error_of
from tuner.devices.nvidia.ring import RingReader, create_ring_file
from tuner.host.python_process import PYTHON, own_environment

# Without persistence mode the driver wakes every GPU at the first call.
_START_FACTOR = 6.0
_REAP_S = 0.5
_ASK_AGAIN_S = 0.1
_LINE_BYTES = 65_536


class AgentChannel:
    """One NVML process. Safe to use from several threads."""

    def __init__(self, deadline_s: float, access: Access) -> None:
        self._deadline_s = deadline_s
        self._ring_descriptor = create_ring_file()
        self._popen = subprocess.Popen(
            [*PYTHON, "tuner.devices.nvidia.agent", str(self._ring_descriptor), access.value],
            env=own_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=(self._ring_descriptor,),
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _end, self._popen, self._ring_descriptor)
        self._lock = threading.Lock()
        self._unread = b""
        self._next_id = 0
        self._failure: tuple[NvmlFault, str] | None = None
        self.driver = ""
        self.devices: tuple[ListedDevice, ...] = ()

    @property
    def deadline_s(self) -> float:
        """How long an answer may take."""
        return self._deadline_s

    @property
    def pid(self) -> int:
        """The process that talks to NVML."""
        return self._popen.pid

    def count(self) -> int:
        """Start NVML and return how many GPUs it has, without asking anything of them.

        Raises the error of `error_of`, also where there is no NVML.
        """
        fault, answer = self._ask_patiently("count", {}, self._deadline_s * _START_FACTOR)
        if fault is not None:
            raise error_of(fault, answer)
        return int(answer)

    def open(self, uuid: str | None = None, *, index: int | None = None) -> bool:
        """Start NVML and list its GPUs, or that one alone; return whether there is an NVML here."""
        asked = {"uuid": uuid, "index": index}
        fault, answer = self._ask_patiently("open", asked, self._deadline_s * _START_FACTOR)
        if fault is NvmlFault.ABSENT:
            return False
        if fault is not None:
            raise error_of(fault, answer)
        self.driver = answer["driver"]
        self.devices = tuple(ListedDevice(**device) for device in answer["devices"])
        return True

    def call(self, command: str, **arguments: Any) -> Any:
        """Return the answer to a command.

        Raises the error of `error_of` for what NVML refused, and `OperatorNeededError` if there is
        no answer within the deadline.
        """
        fault, answer = self._ask_patiently(command, arguments, self._deadline_s)
        if fault is not None:
            raise error_of(fault, answer)
        return answer

    def start_sampling(self, uuids: Sequence[str], period_s: float) -> RingReader:
        """Begin to sample those GPUs; return where the samples can be read."""
        ring = RingReader(self._ring_descriptor, len(uuids))
        self.call("sample", uuids=list(uuids), period_s=period_s)
        return ring

    def check(self) -> None:
        """Raise the error that sampling met, if any. Does not wait."""
        if self._lock.acquire(blocking=False):
            try:
                while self._end.alive and self._message(0.0) is not None:
                    pass
            finally:
                self._lock.release()
        if self._failure is not None:
            raise error_of(*self._failure)

    def close(self) -> None:
        """End the process; one that hangs in the driver is left behind."""
        self._end()

    def _ask_patiently(
        self, command: str, arguments: dict[str, Any], deadline_s: float
    ) -> tuple[NvmlFault | None, Any]:
        """Ask again while the error may pass; it is the GPU's state if it lasts."""
        end_s = time.monotonic() + self._deadline_s
        while True:
            fault, answer = self._ask(command, arguments, deadline_s)
            if fault is not NvmlFault.PASSING:
                return fault, answer
            if time.monotonic() >= end_s:
                return NvmlFault.BROKEN, f"{answer}, for {self._deadline_s:g} s"
            time.sleep(_ASK_AGAIN_S)

    def _ask(
        self, command: str, arguments: dict[str, Any], deadline_s: float
    ) -> tuple[NvmlFault | None, Any]:
        with self._lock:
            if self._failure is not None:
                return self._failure
            if not self._end.alive:
                raise ValueError("the channel is closed")
            self._next_id += 1
            message = {"id": self._next_id, "command": command, "arguments": arguments}
            self._write(json.dumps(message).encode() + b"\n")
            end_s = time.monotonic() + deadline_s
            while self._failure is None:
                answer = self._message(max(0.0, end_s - time.monotonic()))
                if answer is None and self._failure is None:
                    self._failed(f"the GPU does not answer NVML within {deadline_s:g} s")
                elif answer is not None and answer["id"] == self._next_id:
                    if "fault" in answer:
                        return NvmlFault(answer["fault"]), answer["message"]
                    return None, answer["answer"]
            return self._failure

    def _write(self, line: bytes) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading will say that it has ended
            self._popen.stdin.write(line)

    def _message(self, wait_s: float) -> dict[str, Any] | None:
        """Return the next message, or None if none comes in time; keeps a failure it reports."""
        assert self._popen.stdout is not None
        pipe = self._popen.stdout.fileno()
        end_s = time.monotonic() + wait_s
        while b"\n" not in self._unread:
            left_s = max(0.0, end_s - time.monotonic())
            if self._failure is not None or not _readable(pipe, left_s):
                return None
            chunk = os.read(pipe, _LINE_BYTES)
            if not chunk:
                self._failed("the process that talks to NVML ended unexpectedly")
                return None
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if message["id"] is None:
            self._failure = (NvmlFault.BROKEN, message["message"])
        return message

    def _failed(self, message: str) -> None:
        """From now on every call says so; the process is of no more use."""
        self._failure = (NvmlFault.BROKEN, message)
        self._end()


def open_agent(
    deadline_s: float, access: Access = Access.READ, uuid: str | None = None
) -> AgentChannel | None:
    """Start the NVML process; None if this machine has no NVML or no GPU.

    With a `uuid` it is for that GPU alone, and another one that hangs or is lost does not matter.
    Raises `OperatorNeededError` if NVML is here but broken or does not answer.
    """
    agent = AgentChannel(deadline_s, access)
    try:
        if agent.open(uuid) and agent.devices:
            return agent
    except BaseException:
        agent.close()
        raise
    agent.close()
    return None


def _readable(descriptor: int, wait_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(wait_s * 1e3))


def _end(process: subprocess.Popen[bytes], ring_descriptor: int) -> None:
    """Kill without waiting for ever: a call that hangs in the kernel cannot be killed."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    os.close(ring_descriptor)
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_S)
