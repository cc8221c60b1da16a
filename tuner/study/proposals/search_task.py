"""Search task: a study's search space as the search knows it, and its trials as observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from tuner.configuration import Configuration
from tuner.load.overload import served_share
from tuner.metrics import OUTPUT_KINDS
from tuner.search.candidates import Candidates
from tuner.search.failures.causes import FailureCauses
from tuner.search.observation import Observation
from tuner.search.space import Condition, Knob, Point, Space, Value

LAUNCH_OK = "launch_ok"
# user attributes of a trial; durations are seconds
BASELINE = "baseline"
ENDED_EARLY = "ended_early"  # violations are then lower bounds
LAUNCH_S = "launch_s"
WALL_S = "wall_s"
REASON = "reason"  # why the configuration failed
CRASHED = "crashed"  # the same, of one that did not start or died; not of one that is too slow
FAILED_ONCE = "failed_once"  # the same, of a failure that is tried again
CARD = "card"  # that it was measured on, in a study on several

# optuna-dashboard shows these beside the metrics of objectives and SLOs. Not more: each is a row
# per trial that is written once and read at every resume. Our own tables have all metrics.
SHOWN_METRICS = (
    *(kind.energy for kind in OUTPUT_KINDS.values()),
    "energy_per_request_j",
    "mean_power_w",
    *(kind.throughput for kind in OUTPUT_KINDS.values()),
    *(name for kind in OUTPUT_KINDS.values() for name in kind.columns),
    "slo_attainment",
)

PointTest = Callable[[Point], bool]


def _never(_: Configuration) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for a point: a worker's card, and which configurations its warm server can serve."""

    card: str | None = None
    is_warm_for: Callable[[Configuration], bool] = _never


NOBODY = Asker()


@dataclass(frozen=True)
class SearchTask:
    """The search problem in Optuna's parameters.

    Attributes:
        distributions: the distribution of each parameter.
        restarts: the parameters whose change costs a launch.
        constraints: the keys of the constraints besides `launch_ok`, in order.
        is_possible: whether these parameters can work at all.
        is_warm_for: whether the warm server of the worker that asks can serve these parameters.
        card: the card of the worker that asks.
        on_other_cards: what the default gave on cards that no trial of it is from.
        conditions: of a parameter that exists under one value of an earlier one, that one.
        discrete: ordered parameters of which one value may fail by itself.
        margins: by key, how far below 0 each constraint has to be; what is not named has none.
    """

    distributions: Mapping[str, BaseDistribution]
    restarts: frozenset[str]
    constraints: tuple[str, ...]
    is_possible: PointTest
    is_warm_for: PointTest
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    discrete: frozenset[str] = frozenset()
    card: Callable[[], str | None] = lambda: None
    on_other_cards: Callable[[], Sequence[Observation]] = list
    margins: Callable[[], Mapping[str, float]] = dict

    @cached_property
    def space(self) -> Space:
        """Every combination of the parameters' values."""
        return Space([self._knob(name, d) for name, d in self.distributions.items()])

    def has_all_parameters(self, parameters: Mapping[str, Any]) -> bool:
        """Say whether these are the parameters of one point: all that exist beside each other."""
        try:
            return self.space.active(parameters).keys() == parameters.keys()
        except KeyError:
            return False

    def told(self, study: Study) -> list[FrozenTrial]:
        """Return the trials that were told, in order."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in trials if self.has_all_parameters(trial.params)]

    def warm(self, study: Study) -> Point | None:
        """Return what the warm server of the worker that asks was asked for last, if it has one."""
        card = self.card()
        own = [trial for trial in self.told(study) if trial.user_attrs.get(CARD) == card]
        return own[-1].params if own and self.is_warm_for(own[-1].params) else None

    def causes(self, study: Study, also: Sequence[Observation] = ()) -> FailureCauses:
        """Return what is known of failures: told ones, those that are tried again, and `also`."""
        given_up = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return FailureCauses.of(
            self.space,
            [
                *map(self.observation, self.told(study)),
                *(
                    Observation(trial.params, works=False, cause=reason)
                    for trial in given_up
                    if (reason := trial.user_attrs.get(FAILED_ONCE)) is not None
                    and self.has_all_parameters(trial.params)
                ),
                *also,
            ],
        )

    def observations(self, study: Study) -> list[Observation]:
        """Return the told trials as the search reads them, in order; by the present margins.

        In a study on several cards the default's measurements on the other cards follow.
        """
        margins, told = self.margins(), self.told(study)
        found = [self.observation(trial, margins) for trial in told]
        default = next((t.params for t in told if t.user_attrs.get(BASELINE)), None)
        if default is None:
            return found
        return [*found, *(replace(other, point=default) for other in self.on_other_cards())]

    def observation(
        self, trial: FrozenTrial, margins: Mapping[str, float] | None = None
    ) -> Observation:
        """Return a told trial as the search reads it."""
        launch_s, wall_s = trial.user_attrs.get(LAUNCH_S), trial.user_attrs.get(WALL_S)
        card = trial.user_attrs.get(CARD)
        constraints = trial.constraints
        if constraints.get(LAUNCH_OK, 0.0) > 0.0:
            return Observation(
                trial.params,
                works=False,
                launch_s=launch_s,
                wall_s=wall_s,
                card=card,
                cause=trial.user_attrs.get(CRASHED),
                overload=_overload(trial.user_attrs.get(REASON, "")),
            )
        needed = margins or {}
        violations = [constraints[key] + needed.get(key, 0.0) for key in self.constraints]
        if ENDED_EARLY not in trial.user_attrs:
            return Observation(
                trial.params,
                objectives=tuple(trial.values),
                violations=tuple(violations),
                launch_s=launch_s,
                wall_s=wall_s,
                overload=0.0,
                card=card,
            )
        return Observation(
            trial.params,
            objectives=(None,) * len(trial.values),
            violations=tuple(v if v > 0.0 else None for v in violations),
            at_least=tuple(k for k, v in enumerate(violations) if v > 0.0),
            launch_s=launch_s,
            wall_s=wall_s,
            card=card,
        )

    def _knob(self, name: str, distribution: BaseDistribution) -> Knob:
        restarts, condition = name in self.restarts, self.conditions.get(name)
        if isinstance(distribution, CategoricalDistribution):
            options = tuple(option for option in distribution.choices if option is not None)
            return Knob(name, options, ordered=False, restarts=restarts, condition=condition)
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        low, high, step = distribution.low, distribution.high, distribution.step
        if step is None:
            return Knob.between(
                name, low, high, log=distribution.log, restarts=restarts, condition=condition
            )
        count = math.floor((high - low) / step + 1e-6) + 1
        if isinstance(distribution, IntDistribution):
            values: Sequence[int | float] = range(int(low), int(high) + 1, int(step))
        else:
            values = [round(float(v), 10) for v in low + step * np.arange(count)]
        return Knob(
            name,
            tuple(values),
            log=distribution.log,
            restarts=restarts,
            condition=condition,
            discrete=name in self.discrete,
        )


def _overload(reason: str) -> float | None:
    share = served_share(reason)
    return None if share is None else -math.log(share)


def random_point(task: SearchTask, seed: int, causes: FailureCauses) -> dict[str, Any] | None:
    """Return the active parameters of a random possible point; None if none is found."""
    rng = np.random.default_rng(seed)

    def is_possible(point: Point) -> bool:
        return not causes.rules_out(point) and task.is_possible(point)

    pool = Candidates(task.space, is_possible, ()).pool(rng, (), None)
    if not len(pool):
        return None
    return task.space.active(task.space.point(rng.choice(pool)))


def suggested(trial: Trial, name: str, distribution: BaseDistribution) -> Value:
    """Return a parameter's value in a new trial."""
    if isinstance(distribution, CategoricalDistribution):
        value = trial.suggest_categorical(name, distribution.choices)
        assert value is not None
        return value
    if isinstance(distribution, IntDistribution):
        d = distribution
        return trial.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
    assert isinstance(distribution, FloatDistribution)
    f = distribution
    return trial.suggest_float(name, f.low, f.high, step=f.step, log=f.log)
