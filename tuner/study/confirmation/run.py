"""Confirmation: measure the members of the Pareto front again, each on a clean launch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tuner.analysis.outcomes import front_of
from tuner.errors import OperatorNeededError
from tuner.evaluation.evaluator import Evaluator
from tuner.records import Failure, FailureKind, Measurement
from tuner.spec.study import StudySpec
from tuner.store import RepeatKind, Store, TrialOwner
from tuner.study.confirmation.members import Goal
from tuner.study.confirmation.plan import (
    Step,
    aim_step,
    clean_s,
    may_go_on,
    next_step,
    reserve_s,
)
from tuner.study.confirmation.returns import KnobReturn, Order, next_return
from tuner.study.listener import Listener
from tuner.study.stored_repeat import RepeatStore

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
        evaluator: Evaluator,
        owner: TrialOwner,
        listener: Listener,
    ) -> None:
        self._name = name
        self._spec = spec
        self._store = store
        self._evaluator = evaluator
        self._repeats = RepeatStore(name, store, owner)
        self._listener = listener
        self._goal = Goal(spec.slos, spec.objectives, spec.confirm_repeats, spec.quality_drop)
        self._attempts: dict[int, int] = {}
        self._left_out: frozenset[int] = frozenset()
        self._left_out_in_a_row = 0
        self._simplified_s = 0.0  # in this run

    @property
    def reserve_s(self) -> float:
        """The time that the search must leave for the confirmation, s, estimated so far."""
        trials = self._store.trials(self._name)
        size = len(front_of(trials, self._goal.slos, self._goal.objectives))
        repeats = self._store.repeats.of(self._name)
        return reserve_s(self._spec.budget_s, size, self._each_s(), repeats)

    async def aim(self, share: float) -> float:
        """Measure the best so far on unseen traffic if that is due at this share of the budget.

        Returns how long it took, s.
        """
        took_s = 0.0
        while (step := self._next_aim(share)) is not None:
            await asyncio.sleep(0)  # a virtual evaluation never waits, and signals arrive here
            took_s += await self._measure(step)
        return took_s

    def next_return(self, order: Order) -> KnobReturn | None:
        """Return which knob of what would be recommended goes back next, see `returns`."""
        trials, repeats = self._store.trials(self._name), self._store.repeats.of(self._name)
        return next_return(self._goal, trials, repeats, order)

    def _next_aim(self, share: float) -> Step | None:
        trials, repeats = self._store.trials(self._name), self._store.repeats.of(self._name)
        step = aim_step(self._goal, share, self._spec.trials, trials, repeats)
        return None if step is None or step.trial.number in self._left_out else step

    async def run(self, simplify: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Repeat until every member is decided or the time or number of repeats is used up.

        `simplify` tries the next knob of what would be recommended, and says whether there was one.
        Raises `OperatorNeededError` when the machine keeps failing.
        """
        is_told = False
        while (step := self._next()) is not None:
            if simplify is not None and await self._simplifies(simplify):
                continue
            if not is_told:
                self._listener.note(
                    "confirmation: the front is measured again on traffic that the search did not "
                    "see, on launches of its own, beside the default"
                )
                is_told = True
            await asyncio.sleep(0)  # a virtual evaluation never waits, and signals arrive here
            await self._measure(step)

    async def _simplifies(self, simplify: Callable[[], Awaitable[bool]]) -> bool:
        before_s = self._store.study(self._name).spent_s
        has_tried = await simplify()
        self._simplified_s += self._store.study(self._name).spent_s - before_s
        return has_tried

    def reconcile(self) -> None:
        """Delete the repeat that a killed or interrupted tuner was measuring."""
        for trial in self._store.repeats.drop_running(self._name):
            message = f"the repeat of trial {trial} was interrupted and will be measured again"
            self._store.add_event(self._name, "interrupted", message, trial=trial)
            self._listener.note(message)

    def _next(self) -> Step | None:
        repeats = self._store.repeats.of(self._name)
        spent_s = self._store.study(self._name).spent_s
        budget = (self._spec.budget_s, self._spec.trials)
        step = next_step(
            self._goal, self._store.trials(self._name), repeats, left_out=self._left_out
        )
        each_s = self._each_s()
        if step is None or may_go_on(*budget, spent_s, repeats, each_s, self._simplified_s):
            return step
        # a budget in trials counts members only: the default still completes the last pairs
        is_paid = self._spec.hours is None and step.kind is RepeatKind.BASELINE
        has_members = any(r.traffic == step.traffic for r in repeats)
        return step if is_paid and has_members else None

    def _each_s(self) -> float | None:
        repeats = [r.timing for r in self._store.repeats.of(self._name) if r.timing is not None]
        trials = [t.timing for t in self._store.trials(self._name) if t.timing is not None]
        return clean_s(repeats or trials)

    async def _measure(self, step: Step) -> float:
        """Measure, store, count; return the duration, s (virtual on the emulator)."""
        evaluation, spent = await self._repeats.measure(
            step.trial.number,
            step.kind,
            lambda n: self._evaluator.confirm(step.trial.configuration, n, step.traffic),
            step.traffic,
        )
        self._listener.repeat_ended(step, evaluation.result)
        self._count_fault(step, evaluation.result)
        return spent.elapsed_s

    def _count_fault(self, step: Step, result: Measurement | Failure) -> None:
        """Leave out, for this run, a member that keeps failing for a reason outside it."""
        number = step.trial.number
        if isinstance(result, Measurement):
            self._left_out_in_a_row = 0
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
