"""Trials of one study with three knobs: the default, the best with all of them, others."""

from __future__ import annotations

from helpers.records import measured, trial_row
from tuner.analysis.knobs.returned import returned
from tuner.configuration import Configuration
from tuner.slo import Slo
from tuner.store import TrialRow

SLOS = (Slo("p99_tpot_ms", 50.0),)
BASE = Configuration()
FULL = Configuration(flags={"max_num_seqs": 64}, device={"power_limit_w": 400, "sm_clock_mhz": 900})


def trial(
    number: int, configuration: Configuration, energy_j: float, tpot_ms: float, ttft_ms: float = 99
) -> TrialRow:
    metrics = {
        "energy_per_output_token_j": energy_j,
        "p99_tpot_ms": tpot_ms,
        "mean_tpot_ms": 0.8 * tpot_ms,
        "mean_ttft_ms": ttft_ms,
    }
    return trial_row(number, measured(metrics), configuration)


def without(*names: str, of: Configuration = FULL, base: Configuration = BASE) -> Configuration:
    for name in names:
        of = returned(of, name, base)
    return of


DEFAULT = trial(0, BASE, 0.4, 20.0)
BEST = trial(1, FULL, 0.25, 40.0)
