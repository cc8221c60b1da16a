"""Ask-and-tell loop: propose, evaluate, store, tell, until the budget is spent.

Each worker asks when it is free, and is told what the others have measured by then.

A crash at any line loses no result. A measurement is on disk before Optuna is told: first in the
measurement log (see `tuner.study.durability.durable_evaluator`), then in the store. `reconcile`
completes or undoes what a killed tuner left half done.
"""

from __future__ import annotations

import math
import statistics
import time

from tuner.analysis.baseline_doubts import little_room
from tuner.analysis.outcomes import baseline_of
from tuner.errors import OperatorNeededError
from tuner.evaluation.evaluator import BenchLostError, Evaluation
from tuner.records import Failure, FailureKind, Measurement
from tuner.slo import meets_all
from tuner.spec.objective import costs
from tuner.spec.study import StudySpec
from tuner.store import Store, TrialState
from tuner.study.checks.early_question import EarlyQuestion
from tuner.study.confirmation.plan import aim_levels
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.durability.patience import WorkersPatience
from tuner.study.durability.results import all_warnings, require_metrics
from tuner.study.listener import Listener, Progress
from tuner.study.proposals.proposals import Proposal, Proposals
from tuner.study.proposals.search_task import Asker
from tuner.study.proposals.stopping import Point, stop_reason
from tuner.study.stored_repeat import drop_interrupted
from tuner.study.workers.card_baselines import CardBaselines
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker

MAX_ATTEMPTS = 3  # a point is tried again at most twice after an infrastructure fault
_LEAST_TRIALS_TO_SIMPLIFY = 24
_RETURNS_PER_KNOB = 3  # in one study, however often another configuration leads
SHARE_TO_SIMPLIFY = 0.08  # of the hours, kept for it
MAX_POINTS_GIVEN_UP = 2  # in a row; then the machine is at fault, and the run stops for a person


class StudyRun:
    """The search of one study, new or resumed."""

    def __init__(
        self,
        name: str,
        spec: StudySpec,
        store: Store,
        proposals: Proposals,
        fleet: Fleet,
        listener: Listener,
        confirmation: ConfirmationRun | None = None,
        question: EarlyQuestion | None = None,
        card_baselines: CardBaselines | None = None,
    ) -> None:
        self._name = name
        self._spec = spec
        self._store = store
        self._proposals = proposals
        self._fleet = fleet
        self._listener = listener
        self._confirmation = confirmation
        self._question = question
        self._card_baselines = card_baselines
        self._under_way = 0
        self._has_stopped = False  # by the stopping rule
        self._simplifies = False
        self._durations_s: list[float] = []
        self._given_up: list[str] = []
        self._patience = WorkersPatience(name, store, fleet, spec.patience_s, listener.note)

    @property
    def _spent_s(self) -> float:
        return self._store.study(self._name).spent_s

    @property
    def progress(self) -> Progress:
        """The budget spent so far."""
        return Progress(
            self._proposals.complete_count, self._spec.trials, self._spent_s, self._spec.budget_s
        )

    async def run(self) -> None:
        """Evaluate until the budget is spent or the stopping rule ends the search.

        Time for the confirmation is reserved. On cancellation the running trial goes back to the
        queue. Raises `OperatorNeededError` when the machine, not the configurations, keeps failing,
        and `DoubtfulRequestError` if the baseline's measurement speaks against the request.
        """
        self._require_no_doubt()
        points = self._points()

        async def next_of(worker: Worker) -> bool:
            if not self._has_budget(worker) or self._is_flat(points):
                return await self._help_to_aim(worker)
            if await self._patience.wait(worker, lambda: self._has_budget(worker)):
                return True  # others may have spent the budget meanwhile
            if (cards := self._card_baselines) is not None:
                if cards.lacks(worker):
                    await cards.measure(worker, self._patience)
                    return True
                if cards.leave_out_an_outlier(worker):
                    return False
            points.append(self._point(await self._evaluate_next(worker)))
            if self._confirmation is not None and not self._simplifies_before_aim():
                await self._confirmation.aim(worker, self.progress.share)
            return True

        await self._fleet.work_off(next_of)

    async def _help_to_aim(self, worker: Worker) -> bool:
        """Measure what another worker would next, once there is nothing left to search."""
        if self._confirmation is None:
            return False
        return await self._confirmation.help_to_aim(worker, self.progress.share) is not None

    def _simplifies_before_aim(self) -> bool:
        """Say whether what is due on unseen traffic is first tried with most knobs put back.

        Windows on unseen traffic are then of what may be recommended. It is one trial of the search
        each time that such windows are due. A budget in trials has none to spare.
        """
        assert self._confirmation is not None
        returns, share = self._proposals.returns, self.progress.share
        if self._spec.trials is not None or self._spec.traffic == "drawn":
            return False
        if returns.is_under_way:
            return True
        if returns.count >= aim_levels(share, self._spec.trials):
            return False
        step = self._confirmation.return_before_aim(share, returns.order)
        if step is None:
            return False
        returns.enqueue(step.trial, step.names)
        return True

    async def simplify(self, worker: Worker) -> bool | None:
        """Try a knob of what would be recommended at the baseline's value.

        Returns whether there was one. As the repeats do, it comes on top of a budget in trials.
        Only one worker tries that at a time, as what it finds decides which knob is next; others
        try steps beyond. Returns None if there is none, but what is under way may lead.
        """
        if self._may_try_knobs():
            if await self._patience.wait(worker, self._may_try_knobs):
                return True
            if not self._simplifies:
                self._simplifies = True
                try:
                    if await self._try_next_return(worker):
                        return True
                finally:
                    self._simplifies = False
            if len(self._fleet.workers) > 1 and await self._try_beyond(worker):
                return True
        return None if self._under_way else False

    def _may_try_knobs(self) -> bool:
        is_short = self._spec.trials is not None and self._spec.trials < _LEAST_TRIALS_TO_SIMPLIFY
        if self._confirmation is None or self._spec.traffic == "drawn" or is_short:
            return False
        budget_s = self._spec.budget_s
        if math.isfinite(budget_s):
            spent_s = self._spent_s  # with what the repeats took
            if spent_s + self._next_s > budget_s - self._confirmation.kept_s:
                return False
        return self._proposals.returns.count < _RETURNS_PER_KNOB * self._proposals.knob_count

    async def _try_next_return(self, worker: Worker) -> bool:
        assert self._confirmation is not None
        returns = self._proposals.returns
        step = self._confirmation.next_return(returns.order)
        if step is not None:
            returns.enqueue(step.trial, step.names)
        else:
            pair = self._confirmation.next_between()
            if pair is None or not returns.enqueue_between(*pair):
                return False
        await self._evaluate_next(worker)
        return True

    async def _try_beyond(self, worker: Worker) -> bool:
        assert self._confirmation is not None
        leader = self._confirmation.unconfirmed_leader()
        if leader is None or not self._proposals.returns.enqueue_beyond(leader):
            return False
        await self._evaluate_next(worker)
        return True

    async def _evaluate_next(self, worker: Worker) -> Measurement | Failure:
        """Evaluate the next proposal, store the result and tell it; return it."""
        self._under_way += 1
        try:
            return await self._evaluate(worker)
        finally:
            self._under_way -= 1

    async def _evaluate(self, worker: Worker) -> Measurement | Failure:
        began_s = time.monotonic()
        proposal = self._proposals.ask(Asker(worker.card, worker.evaluator.is_warm_for))
        self._store.begin_trial(
            self._name,
            proposal.number,
            proposal.configuration,
            baseline=proposal.baseline,
            owner=worker.owner,
        )
        self._listener.trial_started(proposal)
        try:
            evaluation = await worker.evaluator.evaluate(proposal.configuration, proposal.number)
        except BenchLostError:
            self._put_back(proposal.number, known=True)
            raise
        passed_s = await self._fleet.passed_s(evaluation, began_s)
        result = self._record(proposal, evaluation, passed_s)
        spent = evaluation.spent(time.monotonic() - began_s)
        self._durations_s.append(spent.elapsed_s)
        self._proposals.note_timing(proposal.number, spent)
        self._tell(proposal, result, worker)
        self._listener.trial_ended(proposal, result, self.progress)
        if proposal.baseline:
            self._require_no_doubt()
            self._say_what_has_little_room()
        return result

    def _require_no_doubt(self) -> None:
        if self._question is not None:
            self._question.require_no_doubt()

    def _say_what_has_little_room(self) -> None:
        baseline = baseline_of(self._store.trials(self._name))
        for sentence in [] if baseline is None else little_room(baseline, self._spec.slos):
            self._store.add_event(self._name, "little_room", sentence)
            self._listener.note(sentence)

    def _points(self) -> list[Point | None]:
        """Return the costs of earlier evaluations, for the stopping rule if there is one."""
        if not self._spec.stops_when_flat:
            return []
        rows = [t for t in self._store.trials(self._name) if t.measurement or t.failure]
        return [None if t.measurement is None else self._point(t.measurement) for t in rows]

    def _point(self, result: Measurement | Failure) -> Point | None:
        if isinstance(result, Failure) or result.ended_early is not None:
            return None
        if not meets_all(result.metrics, self._spec.slos):
            return None
        return costs(self._spec.objectives, result.metrics)

    def _is_flat(self, points: list[Point | None]) -> bool:
        if not self._spec.stops_when_flat or self._has_stopped:
            return self._has_stopped
        asked = self._proposals
        reason = stop_reason(points, asked.expected_gains(), asked.expected_gains_in_doubt())
        if reason is None:
            return False
        self._has_stopped = True
        message = f"the search stops: {reason}"
        self._store.add_event(self._name, "flat", message)
        self._listener.note(message)
        return True

    def _has_budget(self, worker: Worker) -> bool:
        trials, budget_s = self._spec.trials, self._spec.budget_s
        # counting reads every trial, and each idle worker asks whenever another one has ended
        if trials is not None and self._proposals.complete_count + self._under_way >= trials:
            return False
        # a trial that would end after the last hour is not begun
        next_s, reserve_s = self._next_s, 0.0
        if self._confirmation is not None and math.isfinite(budget_s):
            reserve_s = self._confirmation.reserve_s
            # the knobs of what is recommended are tried once more
            simplifying_s = self._proposals.knob_count * next_s
            reserve_s += min(simplifying_s, SHARE_TO_SIMPLIFY * budget_s)
        next_s += self._patience.due_s(worker)
        return self._spent_s + next_s < budget_s - reserve_s

    @property
    def _next_s(self) -> float:
        """How long the next trial is expected to take, s."""
        return statistics.median(self._durations_s) if self._durations_s else 0.0

    def _record(
        self, proposal: Proposal, evaluation: Evaluation, passed_s: float
    ) -> Measurement | Failure:
        """Store the result before Optuna or a listener is told; return what was stored.

        The time that passed is stored with it, s: a fault or a kill between the two would lose it.
        """
        number, raw, timing = proposal.number, evaluation.raw, evaluation.timing
        result = require_metrics(self._spec, evaluation.result)
        if isinstance(result, Measurement):
            warnings = all_warnings(self._spec, result, raw, evaluation.warnings)
            self._store.save_measurement(
                self._name,
                number,
                result,
                raw,
                warnings=warnings,
                timing=timing,
                spent_s=passed_s,
            )
        else:
            self._store.save_failure(
                self._name, number, result, raw, timing=timing, spent_s=passed_s
            )
        return result

    def _tell(self, proposal: Proposal, result: Measurement | Failure, worker: Worker) -> None:
        """Tell Optuna the stored result. Every branch is safe to repeat after a crash."""
        number = proposal.number
        if isinstance(result, Measurement):
            self._patience.bears(worker, result, number)
            self._proposals.tell_measured(number, result)
            self._given_up.clear()
        elif is_configurations_fault(result, proposal.attempt) or (
            result.kind is FailureKind.UNSTABLE
            and self._proposals.is_known_to_fail(number, result.reason)
        ):
            measured = self._store.raw_run(self._name, number) is not None
            crashed = has_crashed(result, measured=measured)
            self._proposals.tell_infeasible(number, result.reason, crashed=crashed)
            self._given_up.clear()
        elif self._patience.bears(worker, result, number):
            self._proposals.retry(number, attempt=proposal.attempt)
        elif proposal.attempt < MAX_ATTEMPTS:
            self._store.add_event(self._name, "retry", result.reason, trial=number)
            unstable = result.reason if result.kind is FailureKind.UNSTABLE else None
            self._proposals.retry(number, attempt=proposal.attempt + 1, unstable=unstable)
        else:
            self._give_up(proposal, result.reason)

    def _give_up(self, proposal: Proposal, reason: str) -> None:
        """Give a point up; when the machine is at fault, queue it again for the next run."""
        number = proposal.number
        self._store.add_event(self._name, "given_up", reason, trial=number)
        self._given_up.append(reason)
        if not proposal.baseline and len(self._given_up) < MAX_POINTS_GIVEN_UP:
            self._proposals.give_up(number)
            return
        self._proposals.retry(number, attempt=1)
        raise OperatorNeededError(
            f"trial {number} failed {MAX_ATTEMPTS} times for a reason outside the "
            f"configuration: {reason}; fix it, then `tuner resume {self._name}`"
        )

    def reconcile(self) -> None:
        """Complete what a killed or interrupted tuner left half done.

        A trial with a stored result is told to Optuna; one without goes back to the queue. A repeat
        or a probe is measured again where it is still wanted.
        """
        drop_interrupted(self._name, self._store, self._listener.note)
        states = self._store.states(self._name)
        open_numbers = set(self._proposals.running())
        for number in sorted(open_numbers):
            row = self._store.trial(self._name, number)
            result = None if row is None else row.measurement or row.failure
            if result is not None:
                self._tell(self._proposals.proposal(number), result, self._fleet.first)
            else:
                self._put_back(number, known=row is not None)
        for number, state in states.items():
            if state is TrialState.RUNNING and number not in open_numbers:
                self._store.save_failure(self._name, number, _interrupted())

    def _put_back(self, number: int, *, known: bool) -> None:
        self._proposals.retry(number)
        if known:
            self._store.save_failure(self._name, number, _interrupted())
        message = f"trial {number} was interrupted and is queued again"
        self._store.add_event(self._name, "interrupted", message, trial=number)
        self._listener.note(message)


def is_configurations_fault(failure: Failure, attempt: int) -> bool:
    """Say whether the sampler learns from the failure: an unstable one counts the second time."""
    return failure.kind is FailureKind.CONFIGURATION or (
        failure.kind is FailureKind.UNSTABLE and attempt > 1
    )


def has_crashed(failure: Failure, *, measured: bool) -> bool:
    """Say whether a server did not start or died; `measured`: a load ran to the end of its window.

    One that was measured and failed all the same does not keep up with the load.
    """
    return failure.kind is FailureKind.UNSTABLE or not measured


def _interrupted() -> Failure:
    return Failure(FailureKind.INFRASTRUCTURE, "the tuner was stopped while this trial ran")
