"""How much of what a stretch does to p99 TPOT is known before it is measured? Prints one table.

    python benchmarks/bench_heaviness.py [--windows 90] [--only chat-70B-8xH100]

Windows of a clock on unseen stretches, on the emulator without noise, beside how heavy each stretch
is for the reference server (`tuner.load.heaviness`): the correlation, and the spread of log p99
TPOT before and after the heaviness is taken out. The reference server is not the emulator: it has
one step time for all, no model, no card and no cache.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
from bench_deployable import space_of, spec_of
from deployable_scenarios import SCENARIOS, Scenario

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator.virtual import simulate
from tuner.evaluation.factory import fixed_configuration, measurement_plan
from tuner.load.workload import load_workload
from tuner.measurement.steady_window import SteadyWindow
from tuner.records import Measurement
from tuner.spec.study import StudySpec

FIRST = 7_000
CLOCKS_MHZ = {
    "chat-8B-H100": 900,
    "chat-70B-8xH100": 1620,
    "chat-30B-A3B-B200": 1080,
    "code-8B-L40S": 1470,
    "reasoning-8B-H200": 1020,
}


def windows(scenario: Scenario, spec: StudySpec, count: int) -> list[tuple[float, float]]:
    """Return the heaviness of each stretch, and log p99 TPOT on it."""
    plan = measurement_plan(spec, load_workload(spec.workload), fixed_configuration(space_of(spec)))
    assert plan.heaviness is not None and plan.unseen_window is not None
    clock = Configuration(device={"sm_clock_mhz": CLOCKS_MHZ[scenario.name]})
    found = []
    for number in range(FIRST, FIRST + count):
        raw = simulate(
            load_model(spec.model),
            load_gpu(str(spec.emulate)),
            plan.full(clock),
            plan.workload.unseen(number).requests(),
            plan.load,
            SteadyWindow(plan.unseen_window),
            seed=number,
            noise=False,
        )
        result, heaviness = plan.reduce(raw), plan.heaviness.of(number)
        if isinstance(result, Measurement) and heaviness is not None:
            found.append((heaviness, math.log(result.metrics["p99_tpot_ms"])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=90)
    parser.add_argument("--only", nargs="*", default=[s.name for s in SCENARIOS])
    asked = parser.parse_args()
    print("| scenario | clock | windows | correlation | spread | spread that is left |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for scenario in (s for s in SCENARIOS if s.name in asked.only):
            space = Path(folder) / f"{scenario.name}.yaml"
            space.write_text(scenario.space)
            found = windows(scenario, spec_of(scenario, 0, 8.0, space), asked.windows)
            heaviness, logs = np.array(found).T
            left = logs - np.polyval(np.polyfit(heaviness, logs, 1), heaviness)
            print(
                f"| {scenario.name} | {CLOCKS_MHZ[scenario.name]} MHz | {len(found)} "
                f"| {np.corrcoef(heaviness, logs)[0, 1]:.2f} | {100 * logs.std(ddof=1):.1f} % "
                f"| {100 * left.std(ddof=2):.1f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
