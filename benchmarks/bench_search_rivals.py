"""Optuna's samplers, with a restart for each configuration."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
from bench_search_runs import (
    LAUNCH_S,
    NIGHT_S,
    SETTLE_S,
    WINDOW_S,
    Log,
    Night,
    Seen,
    World,
)
from bench_search_scenarios import OBJECTIVES, REFUSED
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from tuner.configuration import Value

SAMPLERS = ("random", "grid", "nsga2", "tpe", "gp")
_GRID_VALUES = 4


def rival(sampler: str, world: World, seed: int, night_s: float = NIGHT_S) -> Night:
    """Drive a sampler by ask and tell, as the tuner did before it had a search of its own.

    Numbers are told by their index in the knob's values, so that powers of two are evenly spaced;
    a crash is told as complete and infeasible with the worst values seen.
    """
    scenario, log = world.scenario, Log(world)
    rng = np.random.default_rng([seed, 99])
    space = {name: distribution(values) for name, values in scenario.knobs.items()}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        directions=["minimize"] * len(OBJECTIVES), sampler=make(sampler, world, seed)
    )
    default = {n: encode(scenario.knobs[n], v) for n, v in scenario.default.items()}
    study.enqueue_trial(default)
    while log.clock_s < night_s:
        trial = study.ask(space)
        point = {n: decode(scenario.knobs[n], trial.params[n]) for n in scenario.knobs}
        seen = world.measure(point, rng)
        _tell(study, trial, seen, len(scenario.slos))
        window_s = 0.0 if seen.state == REFUSED else SETTLE_S + WINDOW_S
        log.add(point, LAUNCH_S + window_s, launched=True)
    return log.night


def _tell(study: optuna.Study, trial: optuna.Trial, seen: Seen, slos: int) -> None:
    told = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if seen.objectives is not None and seen.violations is not None:
        values, violations, works = list(seen.objectives), list(seen.violations), -1.0
    else:
        columns = zip(*(t.values for t in told), strict=True)
        values = [max(column) for column in columns] or [0.0] * len(study.directions)
        violations = [max([1.0, *(t.constraints[f"b{k}"] for t in told)]) for k in range(slos)]
        works = 1.0
    trial.set_constraint("a", works)
    for k, violation in enumerate(violations):
        trial.set_constraint(f"b{k}", violation)
    study.tell(trial, values)


def make(name: str, world: World, seed: int) -> optuna.samplers.BaseSampler:
    samplers = optuna.samplers
    if name == "random":
        return samplers.RandomSampler(seed=seed)
    if name == "grid":
        coarse = {n: _spread(values) for n, values in world.scenario.knobs.items()}
        return samplers.GridSampler(coarse, seed=seed)
    if name == "nsga2":
        return samplers.NSGAIISampler(population_size=20, seed=seed)
    if name == "tpe":
        return samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=10)
    with warnings.catch_warnings(action="ignore"):
        return samplers.GPSampler(seed=seed, n_startup_trials=10)


def _spread(values: tuple[Value, ...]) -> list[Value]:
    count = min(_GRID_VALUES, len(values))
    levels = np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))
    return [encode(values, values[level]) for level in levels]


def distribution(values: tuple[Value, ...]) -> BaseDistribution:
    if isinstance(values[0], str):
        return CategoricalDistribution(values)
    return IntDistribution(0, len(values) - 1)


def encode(values: tuple[Value, ...], value: Value) -> Value:
    return value if isinstance(value, str) else values.index(value)


def decode(values: tuple[Value, ...], parameter: Value) -> Value:
    return parameter if isinstance(parameter, str) else values[int(parameter)]
