"""Gaussian process sampler: the tuner's own search as an Optuna sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from tuner.search.observation import Observation
from tuner.search.search import ExhaustedError, Search
from tuner.search.space import Knob, Point, Space
from tuner.study.proposals.optuna_compat import writable_trial

LAUNCH_OK = "launch_ok"
# user attributes of a trial; durations are seconds
BASELINE = "baseline"
ENDED_EARLY = "ended_early"  # violations are then lower bounds
LAUNCH_S = "launch_s"
WALL_S = "wall_s"
GAIN = "expected_gain"  # expected gain of the proposal, relative to the feasible results so far
REASON = "reason_to_try"

PointTest = Callable[[Point], bool]


@dataclass(frozen=True, slots=True)
class SearchTask:
    """The search problem in Optuna's parameters.

    Attributes:
        distributions: the distribution of each parameter.
        restarts: the parameters whose change costs a launch.
        constraints: the keys of the constraints besides `launch_ok`, in order.
        is_possible: whether these parameters can work at all.
        is_warm_for: whether the warm server can serve these parameters.
    """

    distributions: Mapping[str, BaseDistribution]
    restarts: frozenset[str]
    constraints: tuple[str, ...]
    is_possible: PointTest
    is_warm_for: PointTest


class SearchSampler(BaseSampler):
    """Proposes all parameters of a trial jointly, from the study's trials.

    It is stateless: a resumed study continues as if it had not stopped.
    """

    def __init__(self, task: SearchTask, seed: int) -> None:
        self._task = task
        self._seed = seed
        self._random = RandomSampler(seed=seed)
        self._space = Space(
            [_knob(n, d, n in task.restarts) for n, d in task.distributions.items()]
        )

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return every parameter."""
        return dict(self._task.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next point; a random one once every possible point was evaluated."""
        told = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        pending = [
            t.params for t in running if t.number != trial.number and self._has_all_parameters(t)
        ]
        told = [t for t in told if self._has_all_parameters(t)]
        default = next((t.params for t in told if t.user_attrs.get(BASELINE)), None)
        search = Search(
            self._space,
            violations=len(self._task.constraints),
            default=default,
            is_possible=self._task.is_possible,
            seed=self._seed,
        )
        last = told[-1].params if told else None
        warm = last if last is not None and self._task.is_warm_for(last) else None
        observations = [self._observation(t) for t in told]
        try:
            # the matrices are small: on a busy machine BLAS threads mostly wait for each other
            with threadpool_limits(limits=1, user_api="blas"):
                suggestion = search.propose(observations, pending, warm)
        except ExhaustedError:
            return {}
        running_trial = writable_trial(study, trial)
        running_trial.set_user_attr(REASON, suggestion.reason)
        if suggestion.gain is not None:
            running_trial.set_user_attr(GAIN, suggestion.gain)
        return dict(suggestion.point)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _has_all_parameters(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() == self._task.distributions.keys()

    def _observation(self, trial: FrozenTrial) -> Observation:
        launch_s, wall_s = trial.user_attrs.get(LAUNCH_S), trial.user_attrs.get(WALL_S)
        constraints = trial.constraints
        if constraints.get(LAUNCH_OK, 0.0) > 0.0:
            return Observation(trial.params, works=False, launch_s=launch_s, wall_s=wall_s)
        violations = [constraints[key] for key in self._task.constraints]
        if ENDED_EARLY not in trial.user_attrs:
            return Observation(
                trial.params,
                objectives=tuple(trial.values),
                violations=tuple(violations),
                launch_s=launch_s,
                wall_s=wall_s,
            )
        return Observation(
            trial.params,
            objectives=(None,) * len(trial.values),
            violations=tuple(v if v > 0.0 else None for v in violations),
            at_least=tuple(k for k, v in enumerate(violations) if v > 0.0),
            launch_s=launch_s,
            wall_s=wall_s,
        )


def _knob(name: str, distribution: BaseDistribution, restarts: bool) -> Knob:
    if isinstance(distribution, CategoricalDistribution):
        options = tuple(option for option in distribution.choices if option is not None)
        return Knob(name, options, ordered=False, restarts=restarts)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None:
        return Knob.between(name, low, high, log=distribution.log, restarts=restarts)
    count = math.floor((high - low) / step + 1e-6) + 1
    if isinstance(distribution, IntDistribution):
        values: Sequence[int | float] = range(int(low), int(high) + 1, int(step))
    else:
        values = [round(float(v), 10) for v in low + step * np.arange(count)]
    return Knob(name, tuple(values), log=distribution.log, restarts=restarts)
