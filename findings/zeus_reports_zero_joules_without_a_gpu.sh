#!/usr/bin/env bash
# ZeusMonitor with its defaults on a machine (or in a container) where NVML shows no GPU. One would
# expect an error, as with `gpu_indices=[0]`. It warns of nothing and measures 0 joules: the best
# energy that a tuner can find. Needs a machine without a GPU; says so and passes on others.
# Seen with zeus 0.16.0.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check zeus==0.16.0 2>/dev/null
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import logging
import sys
import time
import warnings
from importlib.metadata import version

from zeus.device import get_gpus
from zeus.device.exception import ZeusBaseGPUError
from zeus.device.gpu.common import ZeusGPUInitError
from zeus.monitor import ZeusMonitor

print("zeus", version("zeus"))
try:
    get_gpus()
except (ZeusGPUInitError, ZeusBaseGPUError) as error:
    print("no GPU here:", type(error).__name__)
else:
    sys.exit(print("a GPU is here: nothing to see"))

said: list[str] = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger().addHandler(handler)
logging.getLogger("zeus").addHandler(handler)
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    monitor = ZeusMonitor()
    monitor.begin_window("work")
    time.sleep(0.5)
    measured = monitor.end_window("work")
print("measured", measured, "total", measured.total_energy, "J; said", said, warned)
assert measured.time >= 0.5 and measured.total_energy == 0, measured
assert not said and not warned, (said, warned)

try:
    ZeusMonitor(gpu_indices=[0])
except Exception as error:
    print("with gpu_indices=[0]:", type(error).__name__)
else:
    raise AssertionError("a GPU that is not there was accepted")
PY
