"""Inventory: which NVIDIA GPUs there are, and one look at them. Nothing is sampled or changed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from tuner.devices.device_state import DeviceInspection, DeviceList, DeviceState
from tuner.devices.nvidia.agent_channel import open_agent
from tuner.devices.nvidia.visible import visible_devices


def list_nvml_devices(deadline_s: float) -> DeviceList | None:
    """Return every GPU; None without NVML or without a GPU.

    Raises `OperatorNeededError` if NVML or one of the GPUs does not answer.
    """
    agent = open_agent(deadline_s)
    if agent is None:
        return None
    with closing(agent):
        return DeviceList(f"NVIDIA driver {agent.driver}", agent.devices)


def inspect_nvml_device(uuid: str, deadline_s: float) -> DeviceInspection | None:
    """Read one GPU over a channel of its own; None if it is not here.

    Raises `OperatorNeededError` if it does not answer.
    """
    agent = open_agent(deadline_s, uuid=uuid)
    if agent is None:
        return None
    with closing(agent):
        state = DeviceState.from_json(agent.call("state", uuid=uuid))
        profiles = agent.call("power_profiles", uuid=uuid)
        return DeviceInspection(
            state,
            agent.call("persistence_mode", uuid=uuid),
            () if profiles is None else tuple(profiles["available"]),
        )


def visible_memory_in_use(environment: Mapping[str, str], deadline_s: float) -> dict[str, int]:
    """Return the memory in use, bytes, of each GPU that CUDA programs see, by UUID.

    Raises `OperatorNeededError` if one does not answer, `PreflightError` as `visible_devices`.
    """
    agent = open_agent(deadline_s)
    if agent is None:
        return {}
    with closing(agent):
        uuids = [device.uuid for device in visible_devices(agent.devices, environment)]
        return {uuid: int(agent.call("memory_used_bytes", uuid=uuid)) for uuid in uuids}
