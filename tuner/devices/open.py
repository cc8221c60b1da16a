"""Opening this machine's GPUs: the one place that chooses between vendors.

Nothing outside `devices/nvidia` imports from there but this module. To add a vendor, write its
folder as `meter.py` and `limit_control.py` say, and ask it here where NVIDIA answers None: that
means "no such driver or GPU on this machine", and a driver that is there but broken raises instead.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tuner.devices.device_state import DeviceInspection, DeviceList, ListedDevice
from tuner.devices.limit_control import Access, LimitControl, LimitReader
from tuner.devices.nvidia.inventory import (
    inspect_nvml_device,
    list_nvml_devices,
    visible_memory_in_use,
)
from tuner.devices.nvidia.isolated_limits import isolated_nvml_limits
from tuner.devices.nvidia.nvml_limits import nvml_limits
from tuner.devices.nvidia.visible import visible_devices
from tuner.errors import OperatorNeededError

if TYPE_CHECKING:  # the guardian opens limits all night, and should not load numpy for them
    from tuner.devices.meter import Meter

DEADLINE_S = 5.0  # for one answer of a driver


def open_meter(gpu_count: int | None = None) -> Meter | None:
    """Return a meter of the first `gpu_count` GPUs that a server would see (all if None).

    None if this machine has no GPU that can be measured. Raises `PreflightError` where there is one
    without an energy counter, and `OperatorNeededError` where it does not answer.
    """
    from tuner.devices.nvidia.nvml_meter import nvml_meter

    return nvml_meter(gpu_count, deadline_s=DEADLINE_S)


def open_limits(
    access: Access, uuid: str | None = None, *, deadline_s: float = DEADLINE_S
) -> LimitControl | None:
    """Return the control of this machine's limits, or of one GPU's; None if there is no such GPU.

    With `Access.READ` every setter is refused, even for root. Raises
    `OperatorNeededError` if a driver is here but does not answer.
    """
    return nvml_limits(access, uuid, deadline_s)


@contextmanager
def opened_limits(
    access: Access, uuid: str | None = None, *, deadline_s: float = DEADLINE_S
) -> Iterator[LimitControl | None]:
    """Give what `open_limits` returns, and close it."""
    control = open_limits(access, uuid, deadline_s=deadline_s)
    try:
        yield control
    finally:
        if control is not None:
            control.close()


def isolated_limits(*, deadline_s: float = DEADLINE_S) -> LimitReader | None:
    """Return a reader that asks each GPU apart, so that one which hangs does not hide the others.

    None without a GPU. Raises `OperatorNeededError` where the driver itself does not answer.
    """
    return isolated_nvml_limits(deadline_s)


def list_devices(*, deadline_s: float = DEADLINE_S) -> DeviceList | None:
    """Return the GPUs of this machine and their driver; None without one.

    Raises `OperatorNeededError` if the driver or one of the GPUs does not answer.
    """
    return list_nvml_devices(deadline_s)


def devices_for_servers(
    devices: Sequence[ListedDevice], environment: Mapping[str, str]
) -> tuple[ListedDevice, ...]:
    """Return those GPUs that a server with this environment would see, in its order.

    Raises `PreflightError` where which ones are meant cannot be known.
    """
    return visible_devices(devices, environment)


def environment_for(uuids: Collection[str], *, deadline_s: float = DEADLINE_S) -> dict[str, str]:
    """Return the variables with which a server sees these GPUs alone, in the driver's order.

    They are indices, because older servers cannot read a UUID there (vLLM 0.22 cannot). Raises
    `OperatorNeededError` if one of the GPUs is not here, or the driver does not answer.
    """
    found = list_devices(deadline_s=deadline_s)
    known = {} if found is None else {device.uuid: device.index for device in found.devices}
    if missing := sorted(set(uuids) - known.keys()):
        raise OperatorNeededError(
            f"{', '.join(missing)} is no longer among the GPUs of this machine; see `nvidia-smi`"
        )
    indices = sorted(known[uuid] for uuid in uuids)
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # which is the driver's own order
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, indices)),
    }


def inspect_device(uuid: str, *, deadline_s: float = DEADLINE_S) -> DeviceInspection | None:
    """Read everything of one GPU; None if it is not here. Raises `OperatorNeededError`."""
    return inspect_nvml_device(uuid, deadline_s)


def memory_in_use_bytes() -> Mapping[str, int]:
    """Return the memory in use of each GPU that a server started from here sees, by UUID.

    Raises `TunerError` where a GPU does not answer or cannot be told apart.
    """
    return visible_memory_in_use(os.environ, DEADLINE_S)
