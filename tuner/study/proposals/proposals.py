"""Proposals: the next configuration, by ask-and-tell with an Optuna study."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tuner.analysis.knobs.returned import returned
from tuner.configuration import Configuration, Value
from tuner.host.collector import collector_paused
from tuner.records import Measurement, Timing
from tuner.search.observation import Observation
from tuner.search.space import Condition
from tuner.servers.registry import flag_rules
from tuner.slo import Slo
from tuner.spec.objective import Objective, costs
from tuner.spec.search_space import SearchSpace
from tuner.spec.study import SamplerName
from tuner.study.proposals.gp_sampler import GAIN, GAIN_IN_DOUBT, SearchSampler
from tuner.study.proposals.knob_returns import RETURNED, KnobReturns
from tuner.study.proposals.optuna_compat import show_constraints, writable_trial
from tuner.study.proposals.possible_sampler import PossibleSampler
from tuner.study.proposals.search_task import (
    BASELINE,
    CARD,
    CRASHED,
    ENDED_EARLY,
    FAILED_ONCE,
    LAUNCH_OK,
    LAUNCH_S,
    NOBODY,
    REASON,
    SHOWN_METRICS,
    WALL_S,
    Asker,
    SearchTask,
    suggested,
)
from tuner.study.racing.estimates import estimates

_RANDOM_STARTS = 10
CONSTRAINT_NAMES = "constraints, met where <= 0: log(value / bound)"
_UNKNOWN_VIOLATION = 1.0  # of an SLO without any measured violation; as a log ratio
_MET, _VIOLATED = -1.0, 1.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration to evaluate, under its trial number; `attempt` counts from 1."""

    number: int
    configuration: Configuration
    baseline: bool
    attempt: int


def _always(_: Configuration) -> bool:
    return True


class Proposals:
    """Asks Optuna for configurations and tells it their results.

    Objectives are told as logs (less is better), each SLO as the constraint log(value / bound).
    A configuration that does not start or crashes is told COMPLETE with `launch_ok` violated and
    imputed values, so that the sampler avoids its region; imputed values exist in Optuna only.
    `may_fit` is False for a full configuration that surely does not start. `gpus` is how many GPUs
    the study may use, None if that is not known. `baseline` sets what the user's own baseline sets
    of the knobs, by default nothing; `fixed` is what every configuration has.
    `margins` says how far within each SLO the GP sampler aims, see `tuner.analysis.outlook`;
    `on_other_cards` what the baseline gave on cards that no trial of it is from.
    """

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        name: str,
        space: SearchSpace,
        slos: Sequence[Slo],
        objectives: tuple[Objective, ...],
        sampler: SamplerName,
        seed: int,
        may_fit: Callable[[Configuration], bool] = _always,
        gpus: int | None = None,
        baseline: Configuration | None = None,
        fixed: Configuration | None = None,
        margins: Callable[[], Mapping[str, float]] = dict,
        on_other_cards: Callable[[], Sequence[Observation]] = list,
    ) -> None:
        self._margins = margins
        self._on_other_cards = on_other_cards
        self._space = space
        self._asker = NOBODY
        self._may_fit = may_fit
        self._gpus = gpus
        self._baseline = baseline or Configuration()
        self._fixed = fixed or Configuration()
        self._slos = tuple(slos)
        self._objectives = objectives
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["minimize"] * len(objectives),
            load_if_exists=True,
        )
        with collector_paused():
            self._trials()  # Optuna reads them once and makes an object of each row
        self._task = self._search_task()
        self.returns = KnobReturns(self._study, space, self._task)
        self._study.sampler = self._sampler(sampler, seed)
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            self._study.set_metric_names([f"log {o}" for o in objectives])
        self._study.set_user_attr(CONSTRAINT_NAMES, sorted([LAUNCH_OK, *map(str, self._slos)]))
        aims = {*(o.metric for o in objectives), *(slo.metric for slo in self._slos)}
        self._shown = sorted({*SHOWN_METRICS, *aims})

    def _sampler(self, name: SamplerName, seed: int) -> BaseSampler:
        # the same seed after a resume would replay the same start points
        begun = seed + len(self._trials())
        if name == "random":
            return PossibleSampler(RandomSampler(seed=begun), self._task, begun)
        if name == "tpe":
            tpe = TPESampler(seed=begun, multivariate=True, n_startup_trials=_RANDOM_STARTS)
            return PossibleSampler(tpe, self._task, begun)
        return SearchSampler(self._task, seed)

    def _search_task(self) -> SearchTask:
        parameters = self._space.parameters
        sizes = flag_rules().parallel_sizes
        return SearchTask(
            distributions=self._space.distributions(),
            restarts=frozenset(
                one.name for one in parameters if self._space.kind_of(one) == "launch"
            ),
            constraints=tuple(map(str, self._slos)),
            is_possible=self._is_possible,
            is_warm_for=lambda p: self._asker.is_warm_for(self._space.configuration(p)),
            card=lambda: self._asker.card,
            on_other_cards=self._on_other_cards,
            conditions={
                one.name: Condition(*one.under) for one in parameters if one.under is not None
            },
            discrete=frozenset(one.name for one in parameters if one.setting in sizes),
            margins=self._margins,
        )

    def _is_possible(self, parameters: Mapping[str, Value]) -> bool:
        """Say whether parameters keep the relations, are not refused, and may fit."""
        if self._space.broken_relation(parameters, self._gpus) is not None:
            return False
        full, rules = self._space.configuration(parameters).with_fixed(self._fixed), flag_rules()
        if self._gpus is not None and rules.gpus_used(full) > self._gpus:
            return False
        return rules.refusal(full.flags) is None and self._may_fit(full)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    @property
    def has_baseline(self) -> bool:
        """Whether the baseline was told, is queued or is running."""
        live = self._trials(TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
        return any(t.user_attrs.get(BASELINE, False) for t in live)

    @property
    def complete_count(self) -> int:
        """How many evaluations have been told, infeasible ones included."""
        return len(self._trials(TrialState.COMPLETE))

    @property
    def knob_count(self) -> int:
        """How many knobs the space has; fields of a structured flag count one by one."""
        return len(self._space.parameters)

    def expected_gains(self) -> list[float | None]:
        """Return the expected gain of each told trial, in order, relative to the results by then.

        None if the sampler gives no expected gain or the point was queued.
        """
        return [t.user_attrs.get(GAIN) for t in self._trials(TrialState.COMPLETE)]

    def expected_gains_in_doubt(self) -> list[float | None]:
        """Return the same by less certain models; None of a point that was not chosen by them."""
        return [t.user_attrs.get(GAIN_IN_DOUBT) for t in self._trials(TrialState.COMPLETE)]

    def running(self) -> list[int]:
        """Return the numbers of trials that were asked for but not told."""
        return [t.number for t in self._trials(TrialState.RUNNING)]

    def enqueue_baseline(self, defaults: Mapping[str, Value]) -> None:
        """Make the baseline the next trial."""
        parameters = self._space.baseline_parameters(defaults, self._baseline)
        self._study.enqueue_trial(parameters, user_attrs={BASELINE: True, "attempt": 1})

    def enqueue(self, parameters: Mapping[str, Value]) -> None:
        """Put a point at the end of the queue."""
        self._study.enqueue_trial(dict(parameters), user_attrs={"attempt": 1})

    def ask(self, asker: Asker = NOBODY) -> Proposal:
        """Return the next configuration for a worker: a queued one, else the sampler's.

        A queued one that is known to fail by now is given up.
        """
        self._asker = asker
        while True:
            trial = self._study.ask()
            if asker.card is not None:
                trial.set_user_attr(CARD, asker.card)
            parameters: dict[str, Value] = {}
            for one in self._space.parameters:
                if one.is_active(parameters):
                    parameters[one.name] = suggested(trial, one.name, one.knob.distribution())
            if not self._is_queued_in_vain(self._trial(trial.number), parameters):
                return self._proposal(trial.number, parameters, trial.user_attrs)
            self.give_up(trial.number)

    def _is_queued_in_vain(self, trial: FrozenTrial, parameters: Mapping[str, Value]) -> bool:
        """Say whether a trial is a queued point, no baseline and no retry, that cannot work."""
        is_queued = "fixed_params" in trial.system_attrs
        if not is_queued or trial.user_attrs.get(BASELINE) or "retry_of" in trial.user_attrs:
            return False
        is_possible = self._is_possible(parameters)
        return not is_possible or self._task.causes(self._study).rules_out(parameters)

    def proposal(self, number: int) -> Proposal:
        """Return the proposal of trial `number`."""
        trial = self._trial(number)
        return self._proposal(number, trial.params, trial.user_attrs)

    def _proposal(self, number: int, params: dict[str, Any], attrs: dict[str, Any]) -> Proposal:
        baseline = bool(attrs.get(BASELINE, False))
        # without one of the user's own, it sets no knob: vLLM and the GPU use their defaults
        configuration = self._baseline if baseline else self._space.configuration(params)
        for name in attrs.get(RETURNED, ()):
            configuration = returned(configuration, name, self._baseline)
        return Proposal(
            number=number,
            configuration=configuration,
            baseline=baseline,
            attempt=int(attrs.get("attempt", 1)),
        )

    def note_timing(self, number: int, timing: Timing) -> None:
        """Record the trial's durations before `tell`: the sampler weighs gain against time."""
        trial = writable_trial(self._study, self._trial(number))
        trial.set_user_attr(WALL_S, timing.elapsed_s)
        trial.set_user_attr(LAUNCH_S, timing.launch_s)

    def tell_measured(self, number: int, measurement: Measurement) -> None:
        """Tell the metrics; raises `ValueError` if a required one was not measured.

        From a trial that ended early the sampler learns only the missed SLOs, as lower bounds.
        """
        values = costs(self._objectives, measurement.metrics)
        if values is None or any(s.metric not in measurement.metrics for s in self._slos):
            raise ValueError(f"trial {number} lacks a metric of an objective or an SLO")
        violations = {str(s): s.violation(measurement.metrics[s.metric]) for s in self._slos}
        metrics = measurement.metrics
        attrs: dict[str, Any] = {name: metrics[name] for name in self._shown if name in metrics}
        if measurement.ended_early is not None:
            attrs[ENDED_EARLY] = measurement.ended_early
        self._tell(number, values, {LAUNCH_OK: _MET, **violations}, attrs)

    def tell_infeasible(self, number: int, reason: str, *, crashed: bool = True) -> None:
        """Tell that the configuration itself fails; impute the worst values so far.

        `crashed` says that it did not start or died, which one of its options may be to blame for;
        one that does not keep up with the load is just too slow. One that lost a race works, and
        its values are estimates.
        """
        told = self._trials(TrialState.COMPLETE)
        if lost := estimates(reason, told, self._objectives, self._slos):
            self._tell(number, lost.costs, {LAUNCH_OK: _MET, **lost.violations}, {REASON: reason})
            return
        worst = [max(column) for column in zip(*(t.values for t in told), strict=True)]
        violations = {
            str(slo): max([_UNKNOWN_VIOLATION, *(t.constraints[str(slo)] for t in told)])
            for slo in self._slos
        }
        values = tuple(worst) if worst else (0.0,) * len(self._objectives)
        attrs = {REASON: reason, **({CRASHED: reason} if crashed else {})}
        self._tell(number, values, {LAUNCH_OK: _VIOLATED, **violations}, attrs)

    def _tell(
        self,
        number: int,
        values: tuple[float, ...],
        constraints: Mapping[str, float],
        attrs: Mapping[str, Any],
    ) -> None:
        frozen = self._trial(number)
        trial = writable_trial(self._study, frozen)  # a killed tuner may have asked for it
        # GPSampler reads constraints by position and SQLite returns them sorted
        for key in sorted(constraints):
            if key not in frozen.constraints:
                trial.set_constraint(key, constraints[key])
        # optuna-dashboard knows constraints only as a list; their names are the study's attribute
        in_order = [constraints[key] for key in sorted(constraints)]
        show_constraints(self._study, frozen, in_order)
        configuration = self._proposal(number, frozen.params, frozen.user_attrs).configuration
        trial.set_user_attr("configuration", json.dumps(configuration.knobs()))
        for key, value in attrs.items():
            trial.set_user_attr(key, value)
        self._study.tell(number, [float(v) for v in values])

    def is_known_to_fail(self, number: int, reason: str) -> bool:
        """Say whether a trial failed as its options did before, so that it need not be retried."""
        failed = Observation(self._trial(number).params, works=False, cause=reason)
        return self._task.causes(self._study, [failed]).blames(failed.point)

    def retry(
        self, number: int, *, attempt: int | None = None, unstable: str | None = None
    ) -> None:
        """Tell FAIL and put the same point at the front of the queue.

        `attempt` is the new count; None keeps it, for an evaluation that was interrupted.
        `unstable` is why it failed, if that may be the configuration's fault. A repeat after a
        crash between the two steps does not queue the point twice.
        """
        frozen = self._trial(number)
        # a kill inside `ask` leaves a trial with some parameters only; a queued one had all of them
        parameters = {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}
        if not self._task.has_all_parameters(parameters):
            self.give_up(number)
            return
        waiting = self._trials(TrialState.WAITING)
        if not any(t.user_attrs.get("retry_of") == number for t in waiting):
            attrs: dict[str, Any] = {
                "retry_of": number,
                "attempt": attempt or int(frozen.user_attrs.get("attempt", 1)),
                "baseline": bool(frozen.user_attrs.get(BASELINE, False)),
            }
            if RETURNED in frozen.user_attrs:
                attrs[RETURNED] = frozen.user_attrs[RETURNED]
            if unstable is not None:
                writable_trial(self._study, frozen).set_user_attr(FAILED_ONCE, unstable)
            self._study.enqueue_trial(parameters, user_attrs=attrs)
        self.give_up(number)

    def give_up(self, number: int) -> None:
        """Tell FAIL: this evaluation taught nothing about the configuration."""
        self._study.tell(number, state=TrialState.FAIL)

    def _trial(self, number: int) -> FrozenTrial:
        return next(t for t in self._trials() if t.number == number)
