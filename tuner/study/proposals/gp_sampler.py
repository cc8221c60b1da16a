"""Gaussian process sampler: the tuner's own search as an Optuna sampler."""

from __future__ import annotations

from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from tuner.search.search import ExhaustedError, Search
from tuner.study.proposals.optuna_compat import writable_trial
from tuner.study.proposals.search_task import BASELINE, SearchTask, random_point

GAIN = "expected_gain"  # expected gain of the proposal, relative to the feasible results so far
GAIN_IN_DOUBT = "expected_gain_in_doubt"  # the same, by models that are less certain
SAMPLED_FOR = "reason_to_try"


class SearchSampler(BaseSampler):
    """Proposes all parameters of a trial jointly, from the study's trials.

    It is stateless: a resumed study continues as if it had not stopped.
    """

    def __init__(self, task: SearchTask, seed: int) -> None:
        self._task = task
        self._seed = seed
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return every parameter."""
        return dict(self._task.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next point; a random one once every possible point was evaluated."""
        task = self._task
        told = task.told(study)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        pending = [
            t.params
            for t in running
            if t.number != trial.number and task.has_all_parameters(t.params)
        ]
        default = next((t.params for t in told if t.user_attrs.get(BASELINE)), None)
        search = Search(
            task.space,
            violations=len(task.constraints),
            default=default,
            is_possible=task.is_possible,
            seed=self._seed,
        )
        warm = task.warm(study)
        observations, causes = task.observations(study), task.causes(study)
        try:
            # the matrices are small: on a busy machine BLAS threads mostly wait for each other
            with threadpool_limits(limits=1, user_api="blas"):
                suggestion = search.propose(observations, pending, warm, causes)
        except ExhaustedError:
            return random_point(task, self._seed + trial.number, causes) or default or {}
        running_trial = writable_trial(study, trial)
        running_trial.set_user_attr(SAMPLED_FOR, suggestion.reason)
        if suggestion.gain is not None:
            running_trial.set_user_attr(GAIN, suggestion.gain)
        if suggestion.gain_in_doubt is not None:
            running_trial.set_user_attr(GAIN_IN_DOUBT, suggestion.gain_in_doubt)
        return task.space.active(suggestion.point)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)
