"""Confirmation: measure the members of the Pareto front again, each on a clean launch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tuner.analysis.cards.figures import card_figures, on_mean_card, without_noise
from tuner.analysis.outcomes import front_of
from tuner.errors import OperatorNeededError
from tuner.metrics import kind_of
from tuner.records import Failure, FailureKind, Measurement
from tuner.spec.stored import StoredSpec
from tuner.spec.study import StudySpec
from tuner.store import RepeatKind, RepeatRow, Store, TrialRow, TrialState
from tuner.study.confirmation.levels import level_steps
from tuner.study.confirmation.members import AS_LITTLE, AS_LITTLE_BY_MODEL, Goal
from tuner.study.confirmation.plan import (
    Step,
    aim_step,
    clean_s,
    is_aim_due,
    may_aim,
    next_step,
    repeats_left,
    reserve_s,
)
from tuner.study.confirmation.requirement import able_trials
from tuner.study.confirmation.returns import (
    KnobReturn,
    Order,
    begun_leader,
    kept_s,
    next_again,
    next_between,
    next_return,
    return_of_most,
    unconfirmed_leader,
)
from tuner.study.durability.patience import WorkersPatience
from tuner.study.listener import Listener
from tuner.study.stored_repeat import RepeatStore
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker

Simplify = Callable[[Worker], Awaitable[bool | None]]
Require = Callable[[TrialRow], Awaitable[None]]

MAX_ATTEMPTS = 3
MAX_LEFT_OUT = 2  # in a row; then the machine is at fault


class ConfirmationRun:
    """Repeats the front's members and the default, and stores each repeat.

    A kill loses only the repeat that ran; the next run continues from what is stored.
    """

    def __init__(
        self,
        name: str,
        spec: StudySpec,
        store: Store,
        fleet: Fleet,
        listener: Listener,
        expected_costs: Callable[[], Mapping[int, float]] = dict,
    ) -> None:
        """`expected_costs` are the model's first objective of the trials, by number."""
        self._name = name
        self._expected_costs = expected_costs
        self._noiseless: tuple[int, Mapping[int, float]] = (0, {})  # and of how many trials
        self._spec = spec
        self._store = store
        self._fleet = fleet
        self._repeats = RepeatStore(name, store, fleet)
        self._listener = listener
        drops = (spec.quality_drop, spec.picture_drop)
        near = AS_LITTLE if fleet.first.card is None else AS_LITTLE_BY_MODEL
        self._goal = Goal(spec.slos, spec.objectives, spec.confirm_repeats, *drops, near)
        self._patience = WorkersPatience(name, store, fleet, spec.patience_s, listener.note)
        self._attempts: dict[int, int] = {}
        self._left_out: frozenset[int] = frozenset()
        self._left_out_in_a_row = 0
        self._is_aiming = False
        self._is_told = False
        self._budget_s = spec.budget_s
        self._is_late = self._is_spent()  # before this run began

    @property
    def reserve_s(self) -> float:
        """The time that the search must leave for the confirmation, s, estimated so far."""
        trials = self._store.trials(self._name)
        size = len(front_of(trials, self._goal.slos, self._goal.objectives))
        repeats = self._store.repeats.of(self._name)
        return reserve_s(self._spec.budget_s, size, self._each_s(), repeats)

    @property
    def kept_s(self) -> float:
        """The time that trying knobs at the baseline's value leaves to the repeats, s."""
        repeats = _ended(self._store.repeats.of(self._name))
        return kept_s(self._goal, self._able(), repeats, self.reserve_s, self._each_s())

    async def aim(self, worker: Worker, share: float) -> float:
        """Measure the best so far on unseen traffic if that is due at this share of the budget.

        Returns how long it took, s. One worker does so at a time, while the others search.
        """
        took_s = 0.0
        if self._is_aiming:
            return took_s
        self._is_aiming = True
        try:
            while (passed_s := await self._aim_once(worker, share)) is not None:
                took_s += passed_s
        finally:
            self._is_aiming = False
        return took_s

    async def help_to_aim(self, worker: Worker, share: float) -> float | None:
        """Take one of the windows that another worker has before it.

        Returns how long it took, s; None if there is none.
        """
        return await self._aim_once(worker, share) if self._is_aiming else None

    async def _aim_once(self, worker: Worker, share: float) -> float | None:
        if not self._is_aim_due(share):
            return None  # a step is chosen below, once: the trials' model takes a while
        await asyncio.sleep(0)  # a virtual evaluation never waits, and signals arrive here
        if waited_s := await self._patience.wait(worker, lambda: self._next_aim(share) is not None):
            return waited_s
        step = self._next_aim(share)  # others may have taken the last one meanwhile
        return None if step is None else await self._measure(worker, step)

    def next_return(self, order: Order) -> KnobReturn | None:
        """Return which knobs of what is confirmed or recommended next go back, see `returns`."""
        repeats = self._store.repeats.of(self._name)
        left, trials, ended = self._left(repeats), self._able(), _ended(repeats)
        for choose in (unconfirmed_leader, begun_leader):
            leader = choose(self._goal, trials, ended, left)
            if leader is not None and (
                step := next_again(self._goal, leader, trials, ended)
                or next_return(leader, trials, order)
            ):
                return step
        return None

    def return_before_aim(self, share: float, order: Order) -> KnobReturn | None:
        """Return which knobs of what is due on unseen traffic go back before that, if any do."""
        step = self._next_aim(share)
        return None if step is None else return_of_most(step.trial, self._trials(), order)

    def unconfirmed_leader(self) -> int | None:
        """Return the trial that is confirmed next, see `returns`."""
        repeats = self._store.repeats.of(self._name)
        left = self._left(repeats)
        leader = unconfirmed_leader(self._goal, self._able(), _ended(repeats), left)
        return None if leader is None else leader.number

    def next_between(self) -> tuple[int, int] | None:
        """Return two trials between which the best may lie, see `returns`."""
        repeats = self._store.repeats.of(self._name)
        left = self._left(repeats)
        return next_between(self._goal, self._able(), _ended(repeats), left)

    def _is_aim_due(self, share: float) -> bool:
        repeats = self._store.repeats.of(self._name)
        is_possible = may_aim(self._spec.budget_s, repeats, self._each_s())
        return is_possible and is_aim_due(share, self._spec.trials, repeats)

    def _next_aim(self, share: float) -> Step | None:
        if not self._is_aim_due(share):
            return None  # the trials' model takes a while
        repeats = self._store.repeats.of(self._name)
        step = aim_step(self._goal, share, self._spec.trials, self._trials(), repeats)
        return None if step is None or step.trial.number in self._left_out else step

    async def run(
        self,
        simplify: Simplify | None = None,
        require: Require | None = None,
    ) -> None:
        """Repeat until every member is decided or the time or number of repeats is used up.

        Each worker measures rounds of its own: what is compared is measured on one card. `simplify`
        tries a knob of what would be recommended, and says whether there was one; None if another
        worker still does. `require` measures a trial at the load of `--headroom` with the first
        worker, once; what misses an SLO there makes room for the next.
        Raises `OperatorNeededError` when the machine keeps failing.
        """
        required = set[int]()

        async def next_of(worker: Worker) -> bool:
            if self._next(worker) is None:
                return False
            if simplify is not None:
                is_tried = await simplify(worker)
                if is_tried or is_tried is None:
                    return bool(is_tried)
            if await self._patience.wait(worker, lambda: self._next(worker) is not None):
                return True  # something else may lead by now
            step = self._next(worker)
            if step is None:
                return False
            is_new = step.kind is RepeatKind.CONFIRMATION and step.trial.number not in required
            if require is not None and is_new and worker is self._fleet.first:
                required.add(step.trial.number)
                await require(step.trial)
                return True
            if not self._is_told:
                self._listener.note(
                    "confirmation: the front is measured again on traffic that the search did not "
                    "see, beside the default"
                )
                self._is_told = True
            await self._measure(worker, step)
            return True

        await self._fleet.work_off(next_of)
        if self._spec.quality is not None:
            await self._fleet.run_on_one(self._ask_every_level)

    async def go_on(self, until_s: float, require: Require | None = None) -> None:
        """Repeat until `until_s` of the study's time is spent: the final checks left some."""
        self._budget_s, self._is_late = until_s, False
        if self._left(self._store.repeats.of(self._name)):
            await self.run(require=require)

    async def _ask_every_level(self) -> None:
        """Measure levels of thinking that have not answered the questions, once each."""
        stored = StoredSpec.of(self._store.study(self._name))
        repeats = self._store.repeats.of(self._name)
        steps = level_steps(self._trials(), repeats, self._goal.slos, stored.default_level)
        for step in steps if stored.levels else ():
            self._listener.note(f"the questions are asked of trial {step.trial.number} too")
            await self._measure(self._fleet.first, step)

    def _next(self, worker: Worker) -> Step | None:
        repeats = self._store.repeats.of(self._name)
        left = self._left(repeats, self._patience.due_s(worker))
        step = next_step(
            self._goal,
            self._able(),
            repeats,
            worker.card,
            left_out=self._left_out,
            is_one_of_several=len(self._fleet.workers) > 1,
            left=left,
        )
        if step is None or left != 0:
            return step
        # a budget in trials counts members only: the default still completes the last pairs
        is_paid = self._spec.hours is None and step.kind is RepeatKind.BASELINE
        has_members = any(r.traffic == step.traffic for r in repeats)
        return step if is_paid and has_members else None

    def _left(self, repeats: Sequence[RepeatRow], due_s: float = 0.0) -> int | None:
        """Return how many repeats the budget has room for; None if that is not known yet.

        `due_s` is for how long the next one has to wait.
        """
        spent_s = self._store.study(self._name).spent_s + due_s
        budget = (self._budget_s, self._spec.trials)
        return repeats_left(*budget, spent_s, repeats, self._each_s(), is_late=self._is_late)

    def _able(self) -> list[TrialRow]:
        """Return the trials that the probes leave for a recommendation."""
        rows = self._store.repeats.every(self._name)
        return able_trials(self._store.study(self._name), self._trials(), rows, self._goal.slos)

    def _trials(self) -> list[TrialRow]:
        """Return the trials, which compare as if one card had measured them."""
        trials = self._store.trials(self._name)
        if all(trial.owner.card is None for trial in trials):
            return trials
        figures = card_figures(trials, self._store.repeats.probes(self._name))
        return without_noise(on_mean_card(trials, figures), self._costs_of(trials))

    def _costs_of(self, trials: Sequence[TrialRow]) -> Mapping[int, float]:
        """Return what the model expects of each trial, if the first objective is the energy."""
        ended = sum(trial.state is not TrialState.RUNNING for trial in trials)
        kinds = {kind_of(t.measurement.metrics).energy for t in trials if t.measurement}
        if kinds != {self._goal.objectives[0].metric}:
            return {}
        if self._noiseless[0] != ended:
            self._noiseless = (ended, self._expected_costs())
        return self._noiseless[1]

    def _is_spent(self) -> bool:
        """Say whether the hours have no room for a repeat."""
        spent_s = self._store.study(self._name).spent_s
        return spent_s + (self._each_s() or 0.0) > self._spec.budget_s

    def _each_s(self) -> float | None:
        repeats = [r.timing for r in self._store.repeats.of(self._name) if r.timing is not None]
        trials = [t.timing for t in self._store.trials(self._name) if t.timing is not None]
        return clean_s(repeats or trials)

    async def _measure(self, worker: Worker, step: Step) -> float:
        """Measure, store, count; return the time that passed, s (virtual on the emulator)."""
        evaluation, passed_s = await self._repeats.measure(
            worker,
            step.trial.number,
            step.kind,
            lambda n: worker.evaluator.confirm(step.trial.configuration, n, step.traffic),
            step.traffic,
        )
        self._listener.repeat_ended(step, evaluation.result)
        self._count_fault(worker, step, evaluation.result)
        return passed_s

    def _count_fault(self, worker: Worker, step: Step, result: Measurement | Failure) -> None:
        """Leave out, for this run, a member that keeps failing for a reason outside it."""
        number = step.trial.number
        is_borne = self._patience.bears(worker, result, number)
        if isinstance(result, Measurement):
            self._left_out_in_a_row = 0
            return
        if is_borne:
            return
        self._attempts[number] = self._attempts.get(number, 0) + 1
        if result.kind is FailureKind.CONFIGURATION or self._attempts[number] < MAX_ATTEMPTS:
            return
        self._store.add_event(self._name, "given_up", result.reason, trial=number)
        self._left_out |= {number}
        self._left_out_in_a_row += 1
        if step.kind is RepeatKind.BASELINE or self._left_out_in_a_row >= MAX_LEFT_OUT:
            raise OperatorNeededError(
                f"measuring trial {number} again failed {MAX_ATTEMPTS} times for a reason outside "
                f"the configuration: {result.reason}; fix it, then `tuner resume {self._name}`"
            )


def _ended(repeats: Sequence[RepeatRow]) -> list[RepeatRow]:
    return [r for r in repeats if r.state is not TrialState.RUNNING]
