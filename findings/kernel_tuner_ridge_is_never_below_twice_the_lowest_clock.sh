#!/usr/bin/env bash
# Kernel Tuner's model of power over clock (`kernel_tuner.energy`) finds the clock above which voltage, and
# with it energy, rises. It fits clocks less the lowest one, but bounds the result by the lowest clock
# itself: so the ridge is never below twice the lowest clock. Sampled from 600 to 1,980 MHz, a ridge at 900
# is reported as 1,200, without a warning, and so is one at 750 or 1,050: tuning around it looks at clocks that
# use more energy than need be. From 210 MHz on, 900 is found within 3 MHz.
# Seen with kernel-tuner 1.5.0. The powers are those of its own model, exactly, so that a fit can be right.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>/dev/null; }
pip numpy==2.4.6 scipy==1.17.1 jsonschema==4.26.0 packaging==26.4 python-constraint2==2.9.0 xmltodict==1.0.4
pip --no-deps kernel_tuner==1.5.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
from kernel_tuner.energy.energy import estimated_power, fit_power_frequency_model

print("kernel_tuner", version("kernel_tuner"))


def found_mhz(lowest_mhz: int, ridge_mhz: int) -> float:
    """Ten clocks up to 1,980 MHz, and 100 W at the lowest; above the ridge voltage rises."""
    clocks_mhz = np.linspace(lowest_mhz, 1980, 10).round()
    above_mhz = clocks_mhz - lowest_mhz
    powers_w = 100 * estimated_power(above_mhz, ridge_mhz - lowest_mhz, 0.5, 1.0, 50.0)
    found, _, _ = fit_power_frequency_model(clocks_mhz, powers_w)
    return round(float(found), 1)


for lowest_mhz, ridge_mhz in [(600, 750), (600, 900), (600, 1050), (345, 600)]:
    found = found_mhz(lowest_mhz, ridge_mhz)
    print(f"from {lowest_mhz} MHz: ridge at {ridge_mhz} MHz, found at {found}")
    assert abs(found - 2 * lowest_mhz) < 1, found
for lowest_mhz, ridge_mhz in [(600, 1400), (345, 900), (210, 900)]:
    found = found_mhz(lowest_mhz, ridge_mhz)
    print(f"from {lowest_mhz} MHz: ridge at {ridge_mhz} MHz, found at {found}")
    assert abs(found - ridge_mhz) < 5, found
PY
