"""Real GPUs, read through NVML (nvidia-ml-py)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pynvml

from tuner.errors import OperatorNeededError, PreflightError
from tuner.gpu.meter import Activity, PowerReading
from tuner.records import Source


class NvmlMeter:
    """Energy counters and power of the visible GPUs, summed.

    Energy is `nvmlDeviceGetTotalEnergyConsumption` (mJ since driver load, Volta and later), power
    `nvmlDeviceGetPowerUsage` (mW); see NVIDIA's NVML API reference.
    """

    source = Source.MEASURED

    def __init__(self, handles: Sequence[Any], names: Sequence[str], driver: str) -> None:
        self._handles = handles
        self.driver: str | None = driver
        kinds = {name: list(names).count(name) for name in names}
        self.gpu = ", ".join(name if n == 1 else f"{n} x {name}" for name, n in kinds.items())

    def read(self, now_s: float, activity: Activity | None) -> PowerReading | None:
        """Read every GPU; raises `OperatorNeededError` if one does not answer."""
        try:
            energy_mj = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(h) for h in self._handles)
            power_mw = sum(pynvml.nvmlDeviceGetPowerUsage(h) for h in self._handles)
        except pynvml.NVMLError as error:
            raise OperatorNeededError(
                f"NVML stopped answering ({error}); look at `nvidia-smi` and the kernel log for "
                "Xid errors, then `tuner resume`"
            ) from error
        return PowerReading(power_w=power_mw / 1e3, energy_j=energy_mj / 1e3)


def nvml_meter(gpu_count: int | None = None) -> NvmlMeter | None:
    """Return a meter of the first `gpu_count` visible GPUs (all if None); None without NVML.

    Raises `PreflightError` where NVML is there but its GPUs have no energy counter.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None  # no driver or no library: this machine has no NVIDIA GPU to measure
    try:
        handles = _visible_handles()[:gpu_count]
        if not handles:
            return None
        for handle in handles:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        names = [pynvml.nvmlDeviceGetName(h) for h in handles]
        return NvmlMeter(handles, names, pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        raise PreflightError(
            f"NVML is here but gives no energy counter ({error}); the counter needs a Volta or "
            "newer GPU that is not split by MIG"
        ) from error


def _visible_handles() -> list[Any]:
    """Return the GPUs that CUDA programs started from here will see, by index or UUID."""
    count = pynvml.nvmlDeviceGetCount()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
    handles = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdecimal() and int(entry) < count:
            handles.append(pynvml.nvmlDeviceGetHandleByIndex(int(entry)))
        elif entry.startswith("GPU-"):
            handles.append(pynvml.nvmlDeviceGetHandleByUUID(entry))
        else:
            break  # CUDA ignores everything from the first invalid entry on
    return handles
