"""Our energy window beside ZeusMonitor's and integrated power, on a real GPU; sets nothing.

    python benchmarks/real_gpu/against_zeus.py [FILE.json]

The same window of the same GPU under three loads (torch): none, matrix products without a pause,
and bursts of them with pauses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from zeus.monitor import ZeusMonitor

from tuner.devices.meter import WindowContext
from tuner.devices.nvidia.nvml_meter import NvmlMeter, nvml_meter

WINDOW_S = 15.0
LOAD = """
import sys, time, torch
burst_s, pause_s = float(sys.argv[1]), float(sys.argv[2])
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
print("ready", flush=True)
while True:
    until = time.monotonic() + burst_s
    while time.monotonic() < until:
        for _ in range(10):
            c = a @ a
        torch.cuda.synchronize()
    time.sleep(pause_s)
"""
LOADS = {
    "idle": None,
    "matrix products": (1.0, 0.0),
    "bursts of 0.2 s, pauses of 0.3 s": (0.2, 0.3),
    "bursts of 1.5 s, pauses of 1.5 s": (1.5, 1.5),
}


def measured(meter: NvmlMeter, zeus: ZeusMonitor) -> dict[str, object]:
    before = meter.states()
    zeus.begin_window("window", sync_execution=False)
    start_s = time.monotonic()
    time.sleep(WINDOW_S)
    end_s = time.monotonic()
    found = zeus.end_window("window", sync_execution=False)
    time.sleep(0.3)
    verdict = meter.judge(start_s, end_s, WindowContext(before, (), None))
    zeus_j = sum(found.gpu_energy.values())
    assert verdict.energy_j is not None and verdict.integral_j is not None
    return {
        "window_s": end_s - start_s,
        "counter_j": verdict.energy_j,
        "integral_j": verdict.integral_j,
        "zeus_j": zeus_j,
        "counter_to_zeus": verdict.energy_j / zeus_j - 1,
        "counter_to_integral": verdict.energy_j / verdict.integral_j - 1,
        "flags": verdict.flags,
        "reasons": verdict.reasons,
    }


def main() -> None:
    meter, zeus, results = nvml_meter(), ZeusMonitor(gpu_indices=[0]), {}
    assert meter is not None, "no NVML here"
    print(f"{'load':36}{'counter J':>11}{'zeus':>9}{'integral':>10}")
    for name, timing in LOADS.items():
        load = None
        if timing is not None:
            command = [sys.executable, "-c", LOAD, *map(str, timing)]
            load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert load.stdout is not None and "ready" in load.stdout.readline()
        time.sleep(3)
        row = results[name] = measured(meter, zeus)
        if load is not None:
            load.kill()
            load.wait()
        print(
            f"{name:36}{row['counter_j']:11.0f}{row['counter_to_zeus']:+9.2%}"
            f"{row['counter_to_integral']:+10.2%}  {row['flags']} {row['reasons']}"
        )
    meter.close()
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
