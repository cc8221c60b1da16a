"""Workload power profiles of one GPU (Blackwell and newer): asked of NVML, set and read back.

Used inside the process of `tuner.devices.nvidia.agent` alone, as `nvml_library` is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from ctypes import byref
from typing import Any

import pynvml

from tuner.devices.nvidia.faults import NvmlFault
from tuner.devices.nvidia.nvml_library import NvmlDevice, NvmlFaultError

_PREFIX = "NVML_POWER_PROFILE_"
_BITS = 32  # of one word of a mask
_POLLS = 20  # reading back: the driver may need a moment
_POLL_S = 0.05


def profile_names() -> dict[int, str]:
    """Return the profiles that this nvidia-ml-py knows, by number: `max_q`, `llm_inference`."""
    return {
        value: name.removeprefix(_PREFIX).lower()
        for name, value in vars(pynvml).items()
        if name.startswith(_PREFIX) and "OPERATION" not in name and name != f"{_PREFIX}MAX"
    }


def power_profiles(device: NvmlDevice) -> dict[str, list[str]] | None:
    """Return the names of those it has, that are requested, and in force; None if it has none."""
    current = _current(device)
    if current is None or not any(current.perfProfilesMask.mask):
        return None
    return {
        "available": _names(current.perfProfilesMask),
        "requested": _names(current.requestedProfilesMask),
        "enforced": _names(current.enforcedProfilesMask),
    }


def set_power_profiles(device: NvmlDevice, wanted: Iterable[str]) -> None:
    """Request exactly these profiles, and see them in force."""
    names, before = set(wanted), power_profiles(device)
    if before is None:
        message = f"{device.name} has no workload power profiles"
        raise NvmlFaultError(NvmlFault.UNSUPPORTED, message)
    if unknown := sorted(names - set(before["available"])):
        raise NvmlFaultError(
            NvmlFault.REFUSED,
            f"power_profile={unknown[0]}: {device.name} has {', '.join(before['available'])}",
        )
    surplus, missing = set(before["requested"]) - names, names - set(before["requested"])
    if surplus:
        _request(device, pynvml.nvmlDeviceWorkloadPowerProfileClearRequestedProfiles, surplus)
    if missing:
        _request(device, pynvml.nvmlDeviceWorkloadPowerProfileSetRequestedProfiles, missing)
    _await(device, names)


def _await(device: NvmlDevice, names: set[str]) -> None:
    for _ in range(_POLLS):
        now = power_profiles(device)
        if now is not None and set(now["requested"]) == set(now["enforced"]) == names:
            return
        time.sleep(_POLL_S)
    raise NvmlFaultError(
        NvmlFault.BROKEN,
        f"the power profiles of {device.uuid} were set to {_shown(names)} but are {now}; does "
        "something else on this machine request others?",
    )


def _current(device: NvmlDevice) -> Any:
    current = pynvml.c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t()
    function = pynvml.nvmlDeviceWorkloadPowerProfileGetCurrentProfiles
    # nvidia-ml-py hands over what it is given, and NVML wants an address
    answered = device.ask_maybe("power profiles", function, byref(current))
    return None if answered is None else current


def _request(device: NvmlDevice, function: Callable[..., Any], names: set[str]) -> None:
    asked = pynvml.c_nvmlWorkloadPowerProfileRequestedProfiles_v1_t()
    for number, name in profile_names().items():
        if name in names:
            asked.requestedProfilesMask.mask[number // _BITS] |= 1 << number % _BITS
    device.ask(f"power profiles {_shown(names)}", function, byref(asked))


def _names(mask: Any) -> list[str]:
    """Return the names of a mask's bits; a profile newer than the library is `profile_26`."""
    known = profile_names()
    numbers = [n for n in range(8 * _BITS) if mask.mask[n // _BITS] >> n % _BITS & 1]
    return [known.get(number, f"profile_{number}") for number in numbers]


def _shown(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
