"""Warm start: map configurations of an older study to points of a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.analysis.outcomes import feasible, front_of, measured, metric
from tuner.configuration import Configuration, Value
from tuner.slo import Slo
from tuner.spec.knobs import Variants, parameter_name
from tuner.spec.objective import Objective
from tuner.spec.search_space import SearchSpace, encoded_or_none, names_searched
from tuner.spec.stored import StoredSpec
from tuner.store import StudyIdentity, TrialRow

MOST_BY_HOURS = 20
_TOGETHER = (
    frozenset({"trials", "hours"}),
    frozenset({"request_rate", "request_rate_share", "concurrency"}),
    frozenset({"emulate", "live", "base_url"}),
    frozenset({"window_s", "min_window_s", "max_window_s", "precision", "percentile_precision"}),
    frozenset({"allow_gpu_settings", "read_only_device"}),
)
_SHARE_OF_TRIALS = 0.5  # of the budget; the rest is left to the search


def parameters_of(
    space: SearchSpace, configuration: Configuration, defaults: Mapping[str, Value]
) -> dict[str, Value] | None:
    """Return a configuration as Optuna's parameters; a knob that is not set has its default.

    None if the space does not contain it: a value is out of range, a default is unknown, or the
    space lacks a knob.
    """
    searched = names_searched(space, configuration.knobs())
    if searched != set(configuration.knobs()):
        return None
    parameters: dict[str, Value] = {}
    for section, name, knob in space.knobs():
        values = getattr(configuration, section)
        if isinstance(knob, Variants):
            found = space.variant_parameters(section, name, knob, values)
            if found is None:
                return None
            parameters |= found
            continue
        value = values.get(name, space.default_of(name, knob, defaults))
        parameter = None if value is None else encoded_or_none(knob, value)
        if parameter is None:
            return None
        parameters[parameter_name(name, knob)] = parameter
    return parameters


def points_to_start_with(
    trials: Sequence[TrialRow],
    slos: Sequence[Slo],
    objectives: Sequence[Objective],
    budget_trials: int | None,
) -> list[Configuration]:
    """Return the older study's configurations to measure first: its front, then the next best.

    At most half of the new study's trials, or 20 if the budget is hours only. The default is left
    out: it is measured anyway. Configurations that missed an SLO come last, least energy first.
    """
    most = MOST_BY_HOURS
    if budget_trials is not None:
        most = min(most, int(budget_trials * _SHARE_OF_TRIALS))
    first = objectives[0]

    def cost(trial: TrialRow) -> float:
        return objective_cost(trial, first)

    good = measured(trials)
    order = [
        *front_of(trials, slos, objectives),
        *sorted(feasible(good, slos), key=cost),
        *sorted((t for t in good if t.measurement and not t.measurement.ended_early), key=cost),
    ]
    points: list[Configuration] = []
    for trial in order:
        if not trial.baseline and trial.configuration not in points:
            points.append(trial.configuration)
    return points[:most]


def asked_like(old: StudyIdentity, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an old study, overridden by `options`.

    Options that exclude each other, or form one choice, come from one side only.
    """
    said = {name for name, value in options.items() if value is not None}
    kept = {k: v for k, v in StoredSpec.of(old).known.items() if v is not None}
    kept |= {"trials": old.budget_trials, "hours": None}
    kept["hours"] = None if old.budget_s is None else old.budget_s / 3600.0
    for together in _TOGETHER:
        if said & together:
            kept = {name: value for name, value in kept.items() if name not in together}
    kept["seed"] = int(kept.get("seed", 0)) + 1  # the same one would propose the same points
    kept.pop("study", None)
    return {**options, **{k: v for k, v in kept.items() if k not in said and v is not None}}


def objective_cost(trial: TrialRow, objective: Objective) -> float:
    """Return an objective's value to minimise; infinite if it was not measured."""
    value = metric(trial, objective.metric)
    if value is None:
        return float("inf")
    return value if objective.direction.value == "min" else -value
