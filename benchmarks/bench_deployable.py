"""Does what a night recommends hold on other traffic, and save what it says? Prints one table.

    python benchmarks/bench_deployable.py [--studies 8] [--hours 8] [--only chat-8B-H100] [--jobs 2]

Each study is the product's own: search, confirmation and recommendation on the emulator's virtual
clock, in a store of its own. What it recommends is then measured on 20 stretches of 180 s and 3 of
an hour that no study used. Studies and measurements are kept in results/bench-deployable, so a run
that is stopped goes on where it was; remove the folder to begin again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployable_scenarios import SCENARIOS, Scenario
from deployable_truth import Truth

from tuner.analysis.outcomes import energy_j, feasible, slos_of
from tuner.analysis.recommendation.recommend import recommend
from tuner.configuration import Configuration
from tuner.load.workload import load_workload
from tuner.spec.device_ranges import ranges_for
from tuner.spec.search_space import SearchSpace, load_space
from tuner.spec.study import StudySpec, spec_from
from tuner.store import Store, TrialRow
from tuner.study.defaults.windows import fitted_windows
from tuner.study.listener import NullListener
from tuner.study.run import start_study

FOLDER = Path("results/bench-deployable")
_NEAR = 0.005  # a knob whose way back costs less than this made no difference
_BEST_OF = 8  # candidates that hold, before the best of them is taken for the best


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one study's recommendation."""

    scenario: str
    seed: int
    knobs: dict[str, Any]
    stated_percent: float | None
    stated_interval: tuple[float, float] | None
    slo_verdict: str | None
    met_short: int
    met_long: int
    true_percent: float
    over_best_percent: float | None
    idle_knobs: tuple[str, ...]
    wall_s: float

    @property
    def is_inside(self) -> bool:
        """Whether the true saving lies in the stated interval; the default saves 0."""
        if not self.knobs:
            return True
        low, high = self.stated_interval or (math.nan, math.nan)
        return low <= self.true_percent <= high


def spec_of(scenario: Scenario, seed: int, hours: float, space: Path) -> StudySpec:
    options = {**scenario.options, "hours": hours, "seed": seed, "study": f"{scenario.name}-{seed}"}
    spec = spec_from(None, {**options, "space": str(space)})
    return fitted_windows(spec, load_workload(spec.workload)).spec


def space_of(spec: StudySpec) -> SearchSpace:
    return load_space(spec.space, lambda: ranges_for(spec))


def run_study(scenario: Scenario, seed: int, hours: float, folder: Path) -> float:
    """Run a study unless its store says that it is finished; return its wall time, s."""
    path = folder / f"{scenario.name}-{seed}.db"
    done = path.with_suffix(".wall")
    if done.exists():
        return float(done.read_text())
    for old in folder.glob(f"{path.name}*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    space = folder / f"{scenario.name}.yaml"
    space.write_text(scenario.space)
    began_s = time.monotonic()
    with Store.open(path, create=True) as store:
        spec = spec_of(scenario, seed, hours, space.absolute())
        asyncio.run(start_study(spec, store, NullListener(), yes=True))
    wall_s = time.monotonic() - began_s
    done.write_text(f"{wall_s:.1f}")
    return wall_s


def judged(
    scenario: Scenario, seed: int, hours: float, wall_s: float, folder: Path, pool: list[TrialRow]
) -> Verdict:
    """Measure what a study recommends on traffic that it did not see."""
    spec = spec_of(scenario, seed, hours, (folder / f"{scenario.name}.yaml").absolute())
    truth = Truth(scenario, space_of(spec), spec, folder)
    with Store.open(folder / f"{scenario.name}-{seed}.db", create=False) as store:
        found = recommend(store, study=f"{scenario.name}-{seed}")
    shown, best, default = found.summary_of(found.best), found.best.configuration, Configuration()
    short, long = (truth.windows(best, hours=hours_long) for hours_long in (False, True))
    saved = 1.0 - math.exp(truth.log_ratio(best, default))
    over = _over_best(truth, best, pool)
    idle = tuple(name for name in best.knobs() if _is_idle(truth, best, name))
    truth.save()
    return Verdict(
        scenario=scenario.name,
        seed=seed,
        knobs=best.knobs(),
        stated_percent=shown.saving_percent,
        stated_interval=shown.saving_interval_percent,
        slo_verdict=shown.slo_verdict,
        met_short=sum(o.met for o in short),
        met_long=sum(o.met for o in long),
        true_percent=100.0 * saved,
        over_best_percent=over,
        idle_knobs=idle,
        wall_s=wall_s,
    )


def _over_best(truth: Truth, best: Configuration, pool: list[TrialRow]) -> float | None:
    """Return by how many % it uses more than the best of all studies' trials that holds.

    Trials are tried in the order of the search's energy, until some hold.
    """
    ratios = []
    for trial in pool:
        if truth.holds(trial.configuration):
            ratios.append(truth.log_ratio(best, trial.configuration))
        if len(ratios) == _BEST_OF:
            break
    return 100.0 * math.expm1(max(ratios)) if ratios else None


def _is_idle(truth: Truth, best: Configuration, name: str) -> bool:
    """Say whether a knob can go back to the default's value at no cost, with the SLO held."""
    sections = {
        section: {k: v for k, v in values.items() if k != name}
        for section, values in best.to_json().items()
    }
    without = Configuration.from_json(sections)
    return truth.holds(without) and truth.log_ratio(without, best) <= _NEAR


def pool_of(scenario: Scenario, seeds: range, folder: Path) -> list[TrialRow]:
    """Return the trials of all studies that met the SLOs in the search, least energy first."""
    found: dict[str, TrialRow] = {}
    for seed in seeds:
        name = f"{scenario.name}-{seed}"
        if not (folder / f"{name}.wall").exists():
            continue
        with Store.open(folder / f"{name}.db", create=False) as store:
            slos = slos_of(store.study(name))
            for trial in feasible(store.trials(name), slos):
                key = json.dumps(trial.configuration.to_json(), sort_keys=True)
                found.setdefault(key, trial)
    return sorted(found.values(), key=lambda t: energy_j(t) or math.inf)


def line(name: str, rows: list[Verdict]) -> str:
    short = sum(v.met_short for v in rows) / (20 * len(rows))
    long = sum(v.met_long for v in rows) / (3 * len(rows))
    overs = [v.over_best_percent for v in rows if v.over_best_percent is not None]
    return (
        f"| {name} | {len(rows)} | {100 * short:.1f} % | {100 * long:.0f} % "
        f"| {sum(v.is_inside for v in rows)} of {len(rows)} "
        f"| {sum(v.true_percent for v in rows) / len(rows):.1f} % "
        f"| {max(overs, default=math.nan):+.1f} % "
        f"| {sum(bool(v.idle_knobs) for v in rows)} | {sum(v.wall_s for v in rows):.0f} s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--only", nargs="*", default=[s.name for s in SCENARIOS])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    scenarios = [s for s in SCENARIOS if s.name in asked.only]
    seeds = range(asked.studies)
    walls: dict[tuple[str, int], float] = {}
    with ProcessPoolExecutor(asked.jobs) as pool:
        jobs = {
            (s.name, seed): pool.submit(run_study, s, seed, asked.hours, asked.folder)
            for seed in seeds
            for s in scenarios
        }
        for (name, seed), job in jobs.items():
            walls[name, seed] = job.result()
            print(f"{name}, study {seed}: {walls[name, seed]:.0f} s", flush=True)
    verdicts: list[Verdict] = []
    for scenario in scenarios:
        candidates = pool_of(scenario, seeds, asked.folder)
        for seed in seeds:
            wall_s = walls[scenario.name, seed]
            found = judged(scenario, seed, asked.hours, wall_s, asked.folder, candidates)
            verdicts.append(found)
            print(json.dumps(asdict(found)), flush=True)
    (asked.folder / "verdicts.json").write_text(json.dumps([asdict(v) for v in verdicts], indent=1))
    print(
        "\n| scenario | studies | 180 s windows that meet every SLO | hours that do | true saving "
        "in the stated interval | mean true saving | worst J/token over the best that holds "
        "| with a knob of no use | wall |\n|---|---|---|---|---|---|---|---|---|"
    )
    for scenario in scenarios:
        print(line(scenario.name, [v for v in verdicts if v.scenario == scenario.name]))
    print(line("all", verdicts))


if __name__ == "__main__":
    main()
