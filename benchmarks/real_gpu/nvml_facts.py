"""What NVML says of the first GPU, and how often its readings change; sets nothing.

    python benchmarks/real_gpu/nvml_facts.py [FILE.json]

Each reading is polled every 1 ms, idle and under a load of matrix products (torch).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml as nvml

POLLED_S = 4.0
LOAD = """
import torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
print("ready", flush=True)
while True:
    for _ in range(50):
        c = a @ b
    torch.cuda.synchronize()
"""


@contextlib.contextmanager
def matrix_products() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None and "ready" in load.stdout.readline()
        time.sleep(3)
        try:
            yield
        finally:
            load.kill()


def known(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except nvml.NVMLError as error:
        return f"({error})"


def update_period_ms(read: Callable[[], float]) -> dict[str, float] | str:
    """Poll; return the time between two changes."""
    changes, last, reads = [], None, 0
    until = time.monotonic() + POLLED_S
    while (now := time.monotonic()) < until:
        try:
            value = read()
        except nvml.NVMLError as error:
            return f"({error})"
        reads += 1
        if value != last:
            changes.append(now)
            last = value
        time.sleep(0.001)
    gaps = [(b - a) * 1e3 for a, b in itertools.pairwise(changes[1:])]
    if len(gaps) < 3:
        return f"({len(changes)} changes in {POLLED_S:g} s)"
    return {
        "median_ms": round(statistics.median(gaps), 1),
        "least_ms": round(min(gaps), 1),
        "most_ms": round(max(gaps), 1),
        "ms_per_call": round(POLLED_S * 1e3 / reads - 1, 2),
    }


def field(handle: Any, number: int) -> float:
    value = nvml.nvmlDeviceGetFieldValues(handle, [number])[0]
    if value.nvmlReturn:
        raise nvml.NVMLError(value.nvmlReturn)
    return float(value.value.uiVal)


def fixed_facts(gpu: Any) -> dict[str, Any]:
    memory_clocks = known(lambda: nvml.nvmlDeviceGetSupportedMemoryClocks(gpu))
    facts = {
        "name": known(lambda: nvml.nvmlDeviceGetName(gpu)),
        "driver": known(nvml.nvmlSystemGetDriverVersion),
        "memory_gib": known(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).total / 2**30),
        "limit_range_w": known(
            lambda: [w / 1e3 for w in nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu)]
        ),
        "default_limit_w": known(lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(gpu) / 1e3),
        "limit_w": known(lambda: nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1e3),
        "enforced_limit_w": known(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3),
        "persistence": known(lambda: nvml.nvmlDeviceGetPersistenceMode(gpu)),
        "mig": known(lambda: nvml.nvmlDeviceGetMigMode(gpu)),
        "max_sm_clock_mhz": known(lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)),
        "processes_seen": known(lambda: len(nvml.nvmlDeviceGetComputeRunningProcesses(gpu))),
    }
    if isinstance(memory_clocks, list):
        clocks = nvml.nvmlDeviceGetSupportedGraphicsClocks(gpu, memory_clocks[0])
        facts["sm_clocks_mhz"] = [min(clocks), max(clocks), len(clocks)]
    return facts


def readings(gpu: Any) -> dict[str, Any]:
    return {
        "energy counter changes every": update_period_ms(
            lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
        ),
        "instant power changes every": update_period_ms(
            lambda: field(gpu, nvml.NVML_FI_DEV_POWER_INSTANT)
        ),
        "averaged power changes every": update_period_ms(
            lambda: field(gpu, nvml.NVML_FI_DEV_POWER_AVERAGE)
        ),
        "nvmlDeviceGetPowerUsage changes every": update_period_ms(
            lambda: nvml.nvmlDeviceGetPowerUsage(gpu)
        ),
        "instant_power_w": known(lambda: field(gpu, nvml.NVML_FI_DEV_POWER_INSTANT) / 1e3),
        "average_power_w": known(lambda: field(gpu, nvml.NVML_FI_DEV_POWER_AVERAGE) / 1e3),
        "power_usage_w": known(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3),
        "sm_clock_mhz": known(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
        "memory_clock_mhz": known(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
        "temperature_c": known(
            lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
        ),
        "event_reasons": known(lambda: hex(nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))),
    }


def main() -> None:
    nvml.nvmlInit()
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    facts = {"fixed": fixed_facts(gpu), "idle": readings(gpu)}
    with matrix_products():
        facts["matrix products"] = readings(gpu)
    text = json.dumps(facts, indent=1)
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)


if __name__ == "__main__":
    main()
