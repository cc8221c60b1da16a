"""The limits of NVIDIA GPUs, through the process that talks to NVML."""

from __future__ import annotations

import os

from tuner.devices.device_state import DeviceState
from tuner.devices.limit_control import (
    Access,
    LimitState,
    PermissionDeniedError,
    PowerProfiles,
)
from tuner.devices.nvidia.agent_channel import AgentChannel, open_agent
from tuner.devices.nvidia.zeusd import Zeusd, zeusd_from


class NvmlLimits:
    """The limits of this machine's GPUs, through the NVML process and its deadlines.

    Settings that this user may not change go to `daemon`, if there is one.
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

    def power_profiles(self, uuid: str) -> PowerProfiles | None:
        """Read the workload power profiles; None if the GPU has none."""
        found = self._agent.call("power_profiles", uuid=uuid)
        return None if found is None else PowerProfiles(**{k: tuple(v) for k, v in found.items()})

    def set_power_profiles(self, uuid: str, names: tuple[str, ...]) -> None:
        """Request exactly these profiles and see them in force; Zeus's daemon knows none."""
        self._agent.call("set_power_profiles", uuid=uuid, names=list(names))

    def memory_used_bytes(self, uuid: str) -> int:
        """Return how much device memory is taken."""
        return int(self._agent.call("memory_used_bytes", uuid=uuid))

    def close(self) -> None:
        """End the NVML process. What was set stays set."""
        self._agent.close()

    def _index(self, uuid: str) -> int:
        return next(device.index for device in self._agent.devices if device.uuid == uuid)


def nvml_limits(access: Access, uuid: str | None, deadline_s: float) -> NvmlLimits | None:
    """Return the control of this machine's GPUs, or of one; None if there is no such GPU.

    Raises `OperatorNeededError` if NVML is here but does not answer.
    """
    agent = open_agent(deadline_s, access, uuid)
    if agent is None:
        return None
    daemon = zeusd_from(os.environ, deadline_s) if access is Access.SET else None
    return NvmlLimits(agent, daemon)
