#!/usr/bin/env bash
# `PowerMonitor.get_energy(start, end)`, "the energy used by the GPUs between two times", integrates the
# readings that lie between them, and a reading is kept only if it differs from the last. So the time before
# the first and after the last change of a window counts nothing, and a window with fewer than two changes has
# 0.0 J, not the `None` that is promised where there are no readings. A GPU that reads 300 W throughout has
# 0 J in ten seconds. One whose reading changes every 100 ms, as an H200's, has 3 kJ, but only some 60 %
# of that in the same ten seconds as windows of 0.25 s: a short request looks frugal. ZeusMonitor takes its
# joules from here where a GPU has no energy counter. Nothing is warned of.
# Seen with zeus 0.16.0. NVML's answers are given here, as no GPU is at hand.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    zeus==0.16.0 nvidia-ml-py==13.615.71 2>/dev/null
cd "$folder"
cat >measure.py <<'PY'
import time
from importlib.metadata import version
from types import SimpleNamespace
from unittest.mock import patch

import pynvml
from zeus.monitor import PowerMonitor


def readings(gpu: int, fields: list) -> list:
    """300 W, to which GPU 1 adds a mW every other tenth of a second."""
    milliwatts = 300_000 + gpu * (int(time.time() * 10) % 2)
    return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=milliwatts)) for _ in fields]


def unsupported(gpu: int) -> None:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


nvml = {
    "nvmlInit": lambda: None,
    "nvmlShutdown": lambda: None,
    "nvmlDeviceGetCount": lambda: 2,
    "nvmlDeviceGetHandleByIndex": lambda index: index,
    "nvmlDeviceGetName": lambda gpu: "GPU",
    "nvmlDeviceGetC2cModeInfoV": unsupported,
    "nvmlDeviceGetFieldValues": readings,
}
patch.multiple(pynvml, **nvml).start()  # also in the process that polls, which imports this file

if __name__ == "__main__":
    print("zeus", version("zeus"))
    monitor = PowerMonitor(update_period=0.05, power_domains=["device_instant"])
    time.sleep(0.5)
    start = time.time()
    time.sleep(10.5)
    whole = monitor.get_energy(start, start + 10)
    windows = [monitor.get_energy(start + i / 4, start + (i + 1) / 4) for i in range(40)]
    monitor.stop()
    parts = sum(window[1] for window in windows)
    print(f"ten seconds at 300 W: steady {whole[0]:.0f} J, changing {whole[1]:.0f} J")
    print(f"the same as 40 windows of 0.25 s, changing: {parts:.0f} J")
    assert whole[0] == 0.0, whole
    assert 2850 < whole[1] <= 3000, whole
    assert 0.4 < parts / whole[1] < 0.75, parts
PY
CUDA_VISIBLE_DEVICES=0,1 "$folder/venv/bin/python" -W ignore measure.py
