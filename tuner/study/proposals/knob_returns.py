"""Trials near another in Optuna's parameters: with a knob of the baseline's, between, beyond."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from optuna import Study
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.configuration import Value
from tuner.search.acquisition import log_expected_below
from tuner.search.posterior import Models, fit_models
from tuner.search.space import Point
from tuner.spec.search_space import SearchSpace
from tuner.study.proposals.search_task import BASELINE, ENDED_EARLY, SearchTask

RETURNED = "returned"  # the knobs that a trial leaves as the baseline has them

# A step beyond is a tenth of a range, and at least one value.
_STEP_SHARE = 0.1
# The models are too sure of where few were measured, so their standard deviations count thrice;
# a step has to be expected to save so much, a logarithm.
_WIDER, _LEAST_GAIN = 3.0, 0.002


class KnobReturns:
    """Queues trials near one that would be recommended, before it is confirmed."""

    def __init__(self, study: Study, space: SearchSpace, task: SearchTask) -> None:
        self._study = study
        self._space = space
        self._task = task
        self._fitted: tuple[int, Models | None] = (0, None)  # to so many observations

    @property
    def count(self) -> int:
        """How many configurations were queued so."""
        return len({_identity(t) for t in self._trials() if RETURNED in t.user_attrs})

    @property
    def is_under_way(self) -> bool:
        """Whether such a trial is queued or runs."""
        open_states = (TrialState.WAITING, TrialState.RUNNING)
        return any(RETURNED in t.user_attrs and t.state in open_states for t in self._trials())

    def enqueue(self, number: int, knobs: Sequence[str]) -> None:
        """Queue trial `number` with more knobs as the baseline has them, unless it is queued.

        Without knobs it is measured again.
        """
        parameters = self._without(self._trial(number), knobs)
        assert parameters is not None
        names = [*self._trial(number).user_attrs.get(RETURNED, ()), *knobs]
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not any(t.user_attrs.get(RETURNED) == names for t in waiting):
            self._queue(parameters, names)

    def enqueue_between(self, number: int, other: int) -> bool:
        """Queue a trial between two that differ in one knob; say whether there is a new one."""
        found = parameters_between(self._trial(number), self._trial(other), self._trials())
        if found is None or not self._task.is_possible(found):
            return False
        self._queue(found, self._trial(number).user_attrs.get(RETURNED, []))
        return True

    def enqueue_beyond(self, number: int) -> bool:
        """Queue what one knob of a trial, a step further, is expected to save; say whether any is.

        A model sees a minimum where it has measured around one. Further on in a single knob, what
        it expects is often wrong; the greatest gain that may be there is tried first.
        """
        trial, trials = self._trial(number), self._trials()
        steps = [
            (parameters, name)
            for parameters, name in parameters_beyond(trial)
            if not _is_tried(parameters, _returned(trial) - {self._setting(name)}, trials)
            and self._task.is_possible(parameters)
        ]
        models = self._models()
        if models is None or not steps:
            return False
        points = [trial.params, *(parameters for parameters, _ in steps)]
        wide = replace(models, std_scale=_WIDER).posterior(self._task.space.coordinates_of(points))
        means, sds = wide.objective_means[:, 0], wide.objective_sds[:, 0]
        gains = log_expected_below(float(means[0]), means, sds) + wide.log_feasible()
        best = 1 + int(np.argmax(gains[1:]))
        if gains[best] < math.log(_LEAST_GAIN):
            return False
        parameters, name = steps[best - 1]
        self._queue(parameters, sorted(_returned(trial) - {self._setting(name)}))
        return True

    def order(self, number: int, groups: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Return the groups of a trial's knobs that can go back, the least expected change first.

        The change is that of the first objective's model. A group without which the configuration
        cannot work is left out.
        """
        trial = self._trial(number)
        points = {
            names: point for names in groups if (point := self._without(trial, names)) is not None
        }
        change = expected_changes(self._task, self._study, trial.params, list(points.values()))
        by_names = dict(zip(points, change, strict=True))
        return sorted(points, key=lambda names: abs(by_names[names]))

    def expected_costs(self) -> Mapping[int, float]:
        """Return the model's first objective at each told trial, by number, without its noise.

        In a study on several cards it is that of the mean card. Empty while there is no model.
        """
        told = [t for t in self._task.told(self._study) if ENDED_EARLY not in t.user_attrs]
        models = self._models()
        if models is None or not told:
            return {}
        x = self._task.space.coordinates_of([t.params for t in told])
        means, _ = models.objectives[0].predict(x)
        return {t.number: float(mean) for t, mean in zip(told, means, strict=True)}

    def _models(self) -> Models | None:
        """Return the models of what was told by now; every worker asks, and they take a while."""
        known = self._task.observations(self._study)
        if self._fitted[0] != len(known):
            models = fit_models(self._task.space, known, len(self._task.constraints))
            self._fitted = len(known), models
        return self._fitted[1]

    def _queue(self, parameters: Mapping[str, Value], names: Sequence[str]) -> None:
        attrs = {"attempt": 1, RETURNED: list(names)}
        self._study.enqueue_trial(dict(parameters), user_attrs=attrs)

    def _without(self, trial: FrozenTrial, names: Sequence[str]) -> dict[str, Value] | None:
        default = next((t for t in self._trials() if t.user_attrs.get(BASELINE)), None)
        found = None if default is None else parameters_without(self._space, trial, default, names)
        return found if found is not None and self._task.is_possible(found) else None

    def _setting(self, parameter: str) -> str:
        return next(one.setting for one in self._space.parameters if one.name == parameter)

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial(self, number: int) -> FrozenTrial:
        return next(t for t in self._trials() if t.number == number)


def parameters_without(
    space: SearchSpace, trial: FrozenTrial, default: FrozenTrial, names: Collection[str]
) -> dict[str, Value] | None:
    """Return a trial's parameters with those of some knobs from the baseline's trial.

    None if one of them is not known.
    """
    theirs = _parameters(default)
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
    return None if _is_tried(found, _returned(one), trials) else found


def parameters_beyond(trial: FrozenTrial) -> list[tuple[dict[str, Value], str]]:
    """Return a trial's parameters with one of them a step further, and which; both ways."""
    found: list[tuple[dict[str, Value], str]] = []
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        is_int = isinstance(distribution, IntDistribution)
        if not isinstance(distribution, IntDistribution | FloatDistribution):
            continue
        if not distribution.step:
            continue
        count = round((distribution.high - distribution.low) / distribution.step)
        step = distribution.step * max(1, round(_STEP_SHARE * count))
        others = [int(v) if is_int else float(v) for v in (value - step, value + step)]
        within = [v for v in others if distribution.low <= v <= distribution.high]
        found += [({**trial.params, name: other}, name) for other in within]
    return found


def _is_tried(
    parameters: Mapping[str, Value], returned: set[str], trials: Sequence[FrozenTrial]
) -> bool:
    return any(_parameters(t) == parameters and _returned(t) == returned for t in trials)


def _parameters(trial: FrozenTrial) -> dict[str, Value]:
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _identity(trial: FrozenTrial) -> tuple[frozenset[tuple[str, Value]], frozenset[str]]:
    return frozenset(_parameters(trial).items()), frozenset(_returned(trial))


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
