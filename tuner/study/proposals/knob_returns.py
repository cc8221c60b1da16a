"""Trials near another in Optuna's parameters: with a knob of the baseline's, or between two."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from optuna import Study
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from tuner.configuration import Value
from tuner.search.posterior import fit_models
from tuner.search.space import Point
from tuner.spec.search_space import SearchSpace
from tuner.study.proposals.search_task import SearchTask

RETURNED = "returned"  # the knobs that a trial leaves as the baseline has them


def parameters_without(
    space: SearchSpace, trial: FrozenTrial, default: FrozenTrial, names: Collection[str]
) -> dict[str, Value] | None:
    """Return a trial's parameters with those of some knobs from the baseline's trial.

    None if one of them is not known.
    """
    theirs = {**default.system_attrs.get("fixed_params", {}), **default.params}
    parameters: dict[str, Value] = {}
    for one in space.parameters:
        if not one.is_active(parameters):
            continue
        source = theirs if one.setting in names else trial.params
        if one.name not in source:
            return None
        parameters[one.name] = source[one.name]
    return parameters


def parameters_between(
    one: FrozenTrial, other: FrozenTrial, trials: Sequence[FrozenTrial]
) -> dict[str, Value] | None:
    """Return the parameters of two trials with a value half-way between those of a single knob.

    None if they differ in more than that, its range has no value in between, or one of `trials`
    has these parameters already.
    """
    if _returned(one) != _returned(other) or one.params.keys() != other.params.keys():
        return None
    differ = [name for name, value in one.params.items() if other.params[name] != value]
    middle = _middle(one, other, differ[0]) if len(differ) == 1 else None
    if middle is None:
        return None
    found = {**one.params, differ[0]: middle}
    tried = any(
        {**t.system_attrs.get("fixed_params", {}), **t.params} == found
        and _returned(t) == _returned(one)
        for t in trials
    )
    return None if tried else found


def _returned(trial: FrozenTrial) -> set[str]:
    return set(trial.user_attrs.get(RETURNED, ()))


def _middle(one: FrozenTrial, other: FrozenTrial, name: str) -> Value | None:
    distribution = one.distributions[name]
    is_int = isinstance(distribution, IntDistribution)
    if not isinstance(distribution, IntDistribution | FloatDistribution) or not distribution.step:
        return None
    low, high = sorted((one.params[name], other.params[name]))
    middle = low + distribution.step * (round((high - low) / distribution.step) // 2)
    if middle <= low:
        return None
    return int(middle) if is_int else float(middle)


def expected_changes(
    task: SearchTask, study: Study, point: Point, others: Sequence[Point]
) -> list[float]:
    """Return the expected first objective at other points minus that at `point`.

    0 while no model can be fitted.
    """
    models = fit_models(task.space, task.observations(study), len(task.constraints))
    if models is None or not others:
        return [0.0] * len(others)
    means = models.posterior(task.space.coordinates_of([point, *others])).objective_means[:, 0]
    return [float(mean) for mean in means[1:] - means[0]]
