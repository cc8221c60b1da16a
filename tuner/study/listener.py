"""Listener: is told what happens during a study, to show it or to log it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.measurement.listener import LoadListener, NullLoadListener
from tuner.records import Failure, LoadSnapshot, Measurement
from tuner.study.confirmation.plan import Step
from tuner.study.proposals.proposals import Proposal


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of the budget is spent."""

    trials: int
    budget_trials: int | None
    spent_s: float
    budget_s: float

    @property
    def share(self) -> float:
        """The spent share of whichever budget is nearer to its end, 0 to 1."""
        by_trials = self.trials / self.budget_trials if self.budget_trials else 0.0
        return min(1.0, max(by_trials, self.spent_s / self.budget_s))


class Listener(LoadListener, Protocol):
    """Is told of each step of a study, in order.

    One listener is passed to a run, and everything below uses the same one. For every trial there
    is a `trial_started`, then `load_sampled` about once a second, then a `trial_ended`; a trial
    that was interrupted has no end. The confirmation calls `repeat_ended` alone. `note` may come at
    any time. All but `load_sampled` are called in the thread of the event loop, so they must be
    short; what they raise ends the run.

    To show only some of it, derive from `NullListener`:

        class Beep(NullListener):
            def trial_ended(self, proposal, result, progress):
                beep()
    """

    def study_started(self, name: str, progress: Progress) -> None:
        """Take that the search begins, or goes on after an interruption."""

    def trial_started(self, proposal: Proposal) -> None:
        """Take that the evaluation of a proposal begins."""

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Progress
    ) -> None:
        """Take the result of a trial; it is stored, and the sampler knows it."""

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """Take that a trial's configuration was measured again, and stored."""


class NullListener(NullLoadListener):
    """Tells nobody; a base for listeners that want some of the calls."""

    def study_started(self, name: str, progress: Progress) -> None:
        """Drop it."""

    def trial_started(self, proposal: Proposal) -> None:
        """Drop it."""

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Progress
    ) -> None:
        """Drop it."""

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """Drop it."""


class Broadcast:
    """Tells several listeners, in order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def study_started(self, name: str, progress: Progress) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.study_started(name, progress)

    def trial_started(self, proposal: Proposal) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.trial_started(proposal)

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Progress
    ) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.trial_ended(proposal, result, progress)

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.repeat_ended(step, result)

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.load_sampled(snapshot)

    def note(self, message: str) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.note(message)
