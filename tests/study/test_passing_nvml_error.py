"""A night on the stand-in for NVML, in which a reading fails for a while."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helpers.nvml_standin.standin import UNKNOWN
from helpers.standin_study import standin_study
from helpers.studies import wait_for


@pytest.mark.night
def test_an_nvml_error_that_passes_costs_a_window_not_the_night(tmp_path: Path) -> None:
    with standin_study(tmp_path) as study:
        process = study.tuner.start(*study.run_words("--trials", "3", "--no-confirm"))
        wait_for(lambda: study.has_launched() or process.poll() is not None, 40)
        device = study.standin.device(0)
        for _ in range(3):
            time.sleep(0.6)
            device.fail("nvmlDeviceGetTotalEnergyConsumption", UNKNOWN)
            time.sleep(0.25)
            device.mend()
        output, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors
        assert "Traceback" not in output + errors
