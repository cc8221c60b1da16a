"""Possible sampler: a sampler of Optuna's, restricted to points that can work at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tuner.study.proposals.search_task import SearchTask, random_point

_TRIES = 16  # the density estimate of TPE takes milliseconds for each


class PossibleSampler(BaseSampler):
    """Asks another sampler until its point is possible; after a few times it takes a random one.

    A parameter that exists only under a value of another one is asked for only there. A point that
    keeps no relation, surely does not fit, or is known to fail is not possible.
    """

    def __init__(self, sampler: BaseSampler, task: SearchTask, seed: int) -> None:
        self._sampler = sampler
        self._task = task
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return every parameter."""
        return dict(self._task.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a possible point."""
        task, causes = self._task, self._task.causes(study)
        for _ in range(_TRIES):
            drawn = self._drawn(study, trial)
            if task.is_possible(drawn) and not causes.rules_out(drawn):
                return drawn
        return random_point(task, self._seed + trial.number, causes) or drawn

    def _drawn(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        jointly = self._sampler.infer_relative_search_space(study, trial)
        drawn = self._sampler.sample_relative(study, trial, jointly)
        found: dict[str, Any] = {}
        for name, distribution in self._task.distributions.items():
            condition = self._task.conditions.get(name)
            if condition is not None and found.get(condition.knob) != condition.value:
                continue
            found[name] = (
                drawn[name]
                if name in drawn
                else self._sampler.sample_independent(study, trial, name, distribution)
            )
        return found

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return what the other sampler returns."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Tell the other sampler."""
        self._sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the other sampler."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Have the other sampler draw other numbers."""
        self._sampler.reseed_rng()
