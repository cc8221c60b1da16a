"""Is the headroom within 5 % of brute force, with six measurements? Prints one table.

    python benchmarks/bench_headroom.py [--only chat-8B-H100]

For the default and for a slowed configuration of each scenario of `bench_deployable`: the search of
the final checks, and a scan of every load in steps of 1 % around what it found, both on the
emulator's virtual clock and on the same unseen traffic.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from functools import partial
from pathlib import Path

from deployable_scenarios import SCENARIOS, Scenario

from tuner.analysis.deployment.headroom import MOST_PROBES, margin
from tuner.configuration import Configuration
from tuner.evaluation.evaluator import Evaluator, MeasurementPlan
from tuner.evaluation.factory import (
    RunContext,
    fixed_configuration,
    make_evaluator,
    measurement_plan,
    space_knobs,
)
from tuner.evaluation.headroom import find_headroom, headroom_run
from tuner.load.workload import load_workload
from tuner.records import Load
from tuner.spec.device_ranges import ranges_for
from tuner.spec.search_space import load_space
from tuner.spec.study import spec_from

_STEP = 1.01
_AROUND = 1.12
_SLOWED = 0.6  # of the highest SM clock


async def main() -> None:
    """Search and scan, one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[s.name for s in SCENARIOS])
    only = parser.parse_args().only
    print("| scenario | configuration | found | measurements | brute force | ratio |")
    print("|---|---|---|---|---|---|")
    for scenario in SCENARIOS:
        if only in (None, scenario.name):
            await _scenario(scenario)


async def _scenario(scenario: Scenario) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "power.yaml"
        path.write_text(scenario.space, encoding="utf-8")
        spec = spec_from(None, {**scenario.options, "trials": 1, "space": str(path)})
        space = load_space(spec.space, partial(ranges_for, spec))
        plan = measurement_plan(spec, load_workload(spec.workload), fixed_configuration(space))
        context = RunContext("bench", Path(folder))
        evaluator = make_evaluator(spec, plan, space_knobs(space), context)
        defaults = await evaluator.defaults()
        clock_mhz = round(_SLOWED * int(defaults["sm_clock_mhz"]))
        for name, configuration in (
            ("default", Configuration()),
            (f"{clock_mhz} MHz", Configuration(device={"sm_clock_mhz": clock_mhz})),
        ):
            await _compare(scenario, name, configuration, evaluator, plan)


async def _compare(
    scenario: Scenario,
    name: str,
    configuration: Configuration,
    evaluator: Evaluator,
    plan: MeasurementPlan,
) -> None:
    asked: list[float] = []

    async def measure(rate: float) -> float:
        asked.append(rate)
        run = headroom_run(plan, Load(request_rate=rate), 0)
        return margin((await evaluator.probe(configuration, 0, run)).result, plan.slos)

    rate = plan.load.request_rate
    assert rate is not None
    found = await find_headroom(measure, rate)
    searched = len(asked)
    assert searched <= MOST_PROBES
    if found.holds is None:
        print(f"| {scenario.name} | {name} | none below {found.misses:g} | {searched} | | |")
        return
    held: list[bool] = []
    loads = [found.holds / _AROUND]
    while loads[-1] <= found.holds * _AROUND:
        held.append(await measure(loads[-1]) >= 1.0)
        loads.append(loads[-1] * _STEP)
    # p99 of one stretch is not monotonous: between these two, some loads hold and some do not
    first = loads[max(held.index(False) - 1, 0)] if False in held else loads[-1]
    last = loads[max(i for i, holds in enumerate(held) if holds)]
    ratio = found.holds / min(max(found.holds, first), last)
    print(
        f"| {scenario.name} | {name} | {found.holds:.3g} | {searched} | {first:.3g} to {last:.3g} "
        f"| {ratio:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main())
