"""Everything that is known of one GPU at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One GPU as NVML describes it; what it cannot say is None.

    NVML has no getter for locked clocks: only `sm_clock_mhz` under load shows them.
    `event_reasons` are NVML's clock event bits. `pids` are in the namespace of the driver: in a
    container they may be missing.
    """

    uuid: str
    name: str
    time_s: float
    energy_j: float | None
    power_w: float | None
    power_1s_average_w: float | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    max_sm_clock_mhz: int | None
    temperature_c: int | None
    gpu_utilisation: float | None
    memory_utilisation: float | None
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
