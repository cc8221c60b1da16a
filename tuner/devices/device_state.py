"""Device state: a GPU's place in the machine, and its state at one instant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Any


class ClockEvent(IntFlag):
    """Why a GPU's clock is lower than it could be.

    The values are those of NVML's clock event reasons; another vendor translates its own.
    """

    POWER_CAP = 0x4
    HARDWARE_SLOWDOWN = 0x8
    THERMAL_SOFTWARE = 0x20
    THERMAL_HARDWARE = 0x40
    POWER_BRAKE = 0x80


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One GPU as its driver describes it; what it cannot say is None.

    NVML has no getter for locked clocks: only `sm_clock_mhz` under load shows them.
    `event_reasons` are bits of `ClockEvent` and others. `pids` are in the namespace of the driver:
    in a container they may be missing.
    """

    uuid: str
    name: str
    time_s: float
    energy_j: float | None
    power_w: float | None
    power_1s_average_w: float | None
    sm_clock_mhz: int | None
    max_sm_clock_mhz: int | None
    temperature_c: int | None
    gpu_utilisation: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    event_reasons: int | None
    power_limit_w: float | None
    default_power_limit_w: float | None
    min_power_limit_w: float | None
    max_power_limit_w: float | None
    enforced_power_limit_w: float | None
    pids: tuple[int, ...] | None
    mig_enabled: bool | None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DeviceState:
        """Build from what `dataclasses.asdict` gave, after a way through JSON."""
        pids = data["pids"]
        return cls(**{**data, "pids": None if pids is None else tuple(pids)})


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """A GPU as found at the start.

    `index` is its place in the driver's order; `mig_enabled` says whether it is split, None if that
    is not known.
    """

    index: int
    uuid: str
    name: str
    mig_enabled: bool | None


@dataclass(frozen=True, slots=True)
class DeviceList:
    """The GPUs of a machine; `driver` is its name and version, e.g. `NVIDIA driver 575.57.08`."""

    driver: str
    devices: tuple[ListedDevice, ...]


@dataclass(frozen=True, slots=True)
class DeviceInspection:
    """One look at a GPU.

    `persistence_mode` says whether the driver stays loaded while nobody uses the GPU, None if that
    is not known. `power_profiles` are the workload power profiles that it has.
    """

    state: DeviceState
    persistence_mode: bool | None
    power_profiles: tuple[str, ...] = ()


def pids_of(states: Iterable[DeviceState]) -> frozenset[int]:
    """Return the processes that NVML reports on these GPUs."""
    return frozenset(pid for state in states for pid in state.pids or ())
