"""Knob returns in Optuna's parameters: a trial with one knob as the baseline has it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from optuna import Study
from optuna.trial import FrozenTrial

from tuner.configuration import Value
from tuner.search.posterior import fit_models
from tuner.search.space import Point
from tuner.spec.search_space import SearchSpace
from tuner.study.proposals.search_task import SearchTask


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
