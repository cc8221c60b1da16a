"""Reading and changing the limits of real GPUs: power limit and SM clock, by UUID."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from tuner.devices.access import Access
from tuner.devices.device_state import DeviceState
from tuner.devices.faults import PermissionDeniedError, ReadOnlyDeviceError
from tuner.devices.nvidia.agent_channel import AgentChannel, open_agent
from tuner.devices.nvidia.zeusd import Zeusd, zeusd_from

__all__ = [
    "Access",
    "LimitControl",
    "LimitState",
    "PermissionDeniedError",
    "ReadOnlyDeviceError",
    "open_limits",
    "opened_limits",
]


@dataclass(frozen=True, slots=True)
class LimitState:
    """The limits of one GPU as they are now; None is unknown.

    NVML cannot say whether clocks are locked: `locked_sm_clock_mhz` is set only after a lock
    through the same control, and None means not locked or not knowable.
    """

    uuid: str
    name: str
    power_limit_w: float | None
    default_power_limit_w: float | None
    min_power_limit_w: float | None
    max_power_limit_w: float | None
    enforced_power_limit_w: float | None
    locked_sm_clock_mhz: int | None


class LimitControl(Protocol):
    """Changes limits. Every call may raise `OperatorNeededError` if a GPU does not answer."""

    def uuids(self) -> tuple[str, ...]:
        """Return the GPUs that were opened, whether CUDA programs may see them or not."""

    def state(self, uuid: str) -> LimitState:
        """Read the limits of one GPU."""

    def set_power_limit(self, uuid: str, watts: float) -> None:
        """Set and read back.

        Raises `UsageError` out of range, `PermissionDeniedError`, `ReadOnlyDeviceError` if opened
        so, and `OperatorNeededError` if the limit does not read back.
        """

    def lock_sm_clock(self, uuid: str, mhz: int) -> None:
        """Lock to the nearest supported clock; raises as `set_power_limit` does."""

    def unlock_sm_clock(self, uuid: str) -> None:
        """Let the driver choose the clock again."""

    def memory_used_bytes(self, uuid: str) -> int:
        """Return how much device memory is taken, by whomever."""

    def close(self) -> None:
        """End the connection. What was set stays set."""


class NvmlLimits:
    """The limits of this machine's GPUs, through the NVML process and its deadlines.

    What this user may not set is asked of `daemon`, if there is one.
    """

    def __init__(self, agent: AgentChannel, daemon: Zeusd | None = None) -> None:
        self._agent = agent
        self._daemon = daemon
        self._locked_mhz: dict[str, int] = {}

    def uuids(self) -> tuple[str, ...]:
        """Return the GPUs that were opened."""
        return tuple(device.uuid for device in self._agent.devices)

    def state(self, uuid: str) -> LimitState:
        """Read the limits of one GPU."""
        found = DeviceState.from_json(self._agent.call("state", uuid=uuid))
        return LimitState(
            uuid=found.uuid,
            name=found.name,
            power_limit_w=found.power_limit_w,
            default_power_limit_w=found.default_power_limit_w,
            min_power_limit_w=found.min_power_limit_w,
            max_power_limit_w=found.max_power_limit_w,
            enforced_power_limit_w=found.enforced_power_limit_w,
            locked_sm_clock_mhz=self._locked_mhz.get(uuid),
        )

    def set_power_limit(self, uuid: str, watts: float) -> None:
        """Set and read back."""
        try:
            self._agent.call("set_power_limit", uuid=uuid, watts=watts)
        except PermissionDeniedError:
            if self._daemon is None:
                raise
            self._daemon.set_power_limit(self._index(uuid), watts)
        self._agent.call("await_power_limit", uuid=uuid, watts=watts)

    def lock_sm_clock(self, uuid: str, mhz: int) -> None:
        """Lock to the nearest supported clock."""
        nearest_mhz = int(self._agent.call("nearest_sm_clock", uuid=uuid, mhz=mhz))
        try:
            self._agent.call("lock_sm_clock", uuid=uuid, mhz=nearest_mhz)
        except PermissionDeniedError:
            if self._daemon is None:
                raise
            self._daemon.lock_sm_clock(self._index(uuid), nearest_mhz)
        self._locked_mhz[uuid] = nearest_mhz

    def unlock_sm_clock(self, uuid: str) -> None:
        """Let the driver choose the clock again."""
        try:
            self._agent.call("unlock_sm_clock", uuid=uuid)
        except PermissionDeniedError:
            if self._daemon is None:
                raise
            self._daemon.unlock_sm_clock(self._index(uuid))
        self._locked_mhz.pop(uuid, None)

    def memory_used_bytes(self, uuid: str) -> int:
        """Return how much device memory is taken."""
        return int(self._agent.call("memory_used_bytes", uuid=uuid))

    def close(self) -> None:
        """End the NVML process. What was set stays set."""
        self._agent.close()

    def _index(self, uuid: str) -> int:
        return next(device.index for device in self._agent.devices if device.uuid == uuid)


def open_limits(
    access: Access, uuid: str | None = None, *, deadline_s: float = 5.0
) -> LimitControl | None:
    """Return the control of this machine's limits, or of one GPU's; None if there is no such GPU.

    With `Access.READ` every setter is refused, whatever rights this process has. Raises
    `OperatorNeededError` if NVML is here but does not answer.
    """
    agent = open_agent(deadline_s, access, uuid)
    if agent is None:
        return None
    daemon = zeusd_from(os.environ, deadline_s) if access is Access.SET else None
    return NvmlLimits(agent, daemon)


@contextmanager
def opened_limits(
    access: Access, uuid: str | None = None, *, deadline_s: float = 5.0
) -> Iterator[LimitControl | None]:
    """Give what `open_limits` returns, and close it."""
    control = open_limits(access, uuid, deadline_s=deadline_s)
    try:
        yield control
    finally:
        if control is not None:
            control.close()
