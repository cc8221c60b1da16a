"""Watch every GPU each second while other programs use it; sets nothing.

    python watch_gpus.py FILE.csv

A line holds a GPU's temperature, power, SM clock and energy counter, and the energy that
ZeusMonitor found in the window of the last 15 s. Zeus's windows overlap: one begins each second.
`time_s` is the clock of the tuner's own samples, so its energy can be taken of the same windows.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pynvml as nvml
from zeus.monitor import ZeusMonitor

WINDOW_S = 15
_HEADER = (
    "time_s,unix_s,gpu,uuid,temperature_c,power_w,sm_clock_mhz,counter_j,"
    "zeus_start_s,zeus_end_s,zeus_j"
)


def main(target: Path) -> None:
    """Append lines until killed."""
    nvml.nvmlInit()
    gpus = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    uuids = [nvml.nvmlDeviceGetUUID(gpu) for gpu in gpus]
    zeus = ZeusMonitor(gpu_indices=list(range(len(gpus))), cpu_indices=[])
    began_s: dict[int, float] = {}
    with target.open("a", buffering=1) as file:
        if file.tell() == 0:
            file.write(_HEADER + "\n")
        start_s = time.monotonic()
        second = 0
        while True:
            time.sleep(max(0.0, start_s + second - time.monotonic()))
            found, window = {}, ""
            if (first := second - WINDOW_S) in began_s:
                found = zeus.end_window(f"from {first}", sync_execution=False).gpu_energy
                window = f"{began_s.pop(first):.4f},{time.monotonic():.4f}"
            zeus.begin_window(f"from {second}", sync_execution=False)
            began_s[second] = time.monotonic()
            for index, gpu in enumerate(gpus):
                zeus_part = f"{window},{found[index]:.3f}" if index in found else ",,"
                file.write(f"{_line(index, gpu, uuids[index])},{zeus_part}\n")
            second = max(second + 1, int(time.monotonic() - start_s))


def _line(index: int, gpu: object, uuid: str) -> str:
    readings = (
        nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
        nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,
    )
    values = ",".join(f"{value:g}" for value in readings[:3])
    return f"{time.monotonic():.4f},{time.time():.2f},{index},{uuid},{values},{readings[3]:.3f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
