#!/usr/bin/env bash
# carbontracker names every GPU that it found and reads the power of each. The energy of an epoch is
# then the mean over all readings times the duration: four GPUs at 300 W for an hour are 0.3 kWh
# instead of 1.2. A deployment on four cards looks like one on a single card, and idle neighbours
# make a busy card look frugal. One GPU is right, and carbontracker 1.2.5 gave 1.2.
# Seen with carbontracker 2.4.7. NVML's answers are given here, as no GPU is at hand; the rest is its own
# (without the libraries that draw its charts and look up the place).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>/dev/null; }
pip numpy==2.4.6 nvidia-ml-py==13.615.71 psutil==7.2.2 py-cpuinfo==9.0.0 importlib-metadata==10.2.0 requests==2.34.2
pip --no-deps carbontracker==2.4.7
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version
from unittest.mock import patch

import pynvml
from carbontracker.components.component import Component

print("carbontracker", version("carbontracker"))


def measured_kwh(watts: list[int]) -> float:
    """One epoch of an hour in which each GPU draws its watts, read three times."""
    nvml = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(watts),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: f"GPU {handle}",
        "nvmlDeviceGetPowerUsage": lambda handle: watts[handle] * 1000,  # mW
    }
    with patch.multiple(pynvml, **nvml):
        gpus = Component("gpu", pids=[], devices_by_pid=False, logger=None)
        gpus.init()
        assert len(gpus.devices()) == len(watts), gpus.devices()
        for _ in range(3):
            gpus.collect_power_usage(epoch=1)
        (kwh,) = gpus.energy_usage([3600])
    return round(float(kwh), 6)


cases = {"one": [300], "four": [300] * 4, "one busy, three idle": [700, 60, 60, 60]}
seen = {}
for name, watts in cases.items():
    seen[name] = measured_kwh(watts)
    print(f"{name}: {watts} W for an hour: {seen[name]} kWh of {sum(watts) / 1000}")
assert seen == {"one": 0.3, "four": 0.3, "one busy, three idle": 0.22}, seen
PY
