"""The search on functions that are not vLLM, beside Optuna's samplers, at the same evaluations.

    python benchmarks/bench_foreign.py
    python benchmarks/bench_foreign.py --method ours --batch 8

Prints, for each family of functions and each method, the share of the true front's hypervolume, of
the true values of those evaluated points that truly meet both constraints. With `--batch` so many
points are asked for before any of them is told.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import optuna
from bench_search import has_torch, torch_environment, torch_python
from bench_search_rivals import decode, distribution
from foreign_functions import FAMILIES, SPACE, Foreign

from tuner.search.observation import Observation
from tuner.search.search import Search
from tuner.search.space import Point

EVALUATIONS = 60
COUNTS = (20, 40, EVALUATIONS)


def ours(function: Foreign, seed: int, batch: int) -> list[Point]:
    """Return the points that the search evaluates, in order."""
    search = Search(SPACE, violations=2, seed=seed)
    rng = np.random.default_rng([seed, 5])
    seen: list[Observation] = []
    while len(seen) < EVALUATIONS:
        pending: list[Point] = []
        for _ in range(min(batch, EVALUATIONS - len(seen))):
            pending.append(search.propose(seen, pending).point)
        seen += [function.evaluate(point, rng) for point in pending]
    return [observation.point for observation in seen]


def rival(make: Callable[[int], optuna.samplers.BaseSampler]) -> Callable[..., list[Point]]:
    """Return the same for a sampler; numbers are told by their index, and a crash as infeasible."""

    def points(function: Foreign, seed: int, batch: int) -> list[Point]:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings(action="ignore"):
            study = optuna.create_study(directions=["minimize"] * 2, sampler=make(seed))
        rng = np.random.default_rng([seed, 5])
        knobs = {knob.name: knob.values for knob in SPACE.knobs}
        space = {name: distribution(values) for name, values in knobs.items()}
        found: list[Point] = []
        while len(found) < EVALUATIONS:
            trials = [study.ask(space) for _ in range(min(batch, EVALUATIONS - len(found)))]
            for trial in trials:
                point = {n: decode(values, trial.params[n]) for n, values in knobs.items()}
                found.append(point)
                _tell(study, trial, function.evaluate(point, rng))
        return found

    return points


def _tell(study: optuna.Study, trial: optuna.Trial, seen: Observation) -> None:
    told = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    values, violations = list(seen.objectives), list(seen.violations)
    if not seen.works:
        columns = zip(*(t.values for t in told), strict=True)
        values = [max(column) for column in columns] or [0.0, 0.0]
        violations = [max([1.0, *(t.constraints[f"b{k}"] for t in told)]) for k in range(2)]
    trial.set_constraint("a", -1.0 if seen.works else 1.0)
    for k, violation in enumerate(violations):
        assert violation is not None
        trial.set_constraint(f"b{k}", violation)
    study.tell(trial, [value for value in values if value is not None])


METHODS: dict[str, Callable[[Foreign, int, int], list[Point]]] = {
    "ours": ours,
    "gp": rival(lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=10)),
    "tpe": rival(lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True)),
    "random": rival(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    options = parser.parse_args()
    methods = options.method or list(METHODS)
    if "gp" in methods and not has_torch():
        python = torch_python()
        if python is not None:  # everything is made there, and everything else comes from here
            command = [python, __file__, *sys.argv[1:]]
            sys.exit(subprocess.run(command, env=torch_environment()).returncode)
        methods.remove("gp")
    print(
        f"{'family':9}{'method':8}{'seeds':>6}"
        + "".join(f"{f'at {n}':>8}" for n in COUNTS)
        + f"{'worst':>8}{'CPU s':>8}"
    )
    for family in options.family or list(FAMILIES):
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        functions = {seed: Foreign(family, seed) for seed in seeds}
        for method in methods:
            began_s = time.process_time()
            found = [METHODS[method](functions[s], s, options.batch) for s in seeds]
            spent_s = (time.process_time() - began_s) / len(seeds)
            shares = [
                [functions[s].share(points[:n]) for n in COUNTS]
                for s, points in zip(seeds, found, strict=True)
            ]
            medians = [statistics.median(column) for column in zip(*shares, strict=True)]
            print(
                f"{family:9}{method:8}{len(seeds):6}"
                + "".join(f"{median:8.3f}" for median in medians)
                + f"{min(row[-1] for row in shares):8.3f}{spent_s:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    np.seterr(under="ignore")
    main()
