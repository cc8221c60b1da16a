"""Listener: receives the events of a study, to show or log them."""

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
    """Progress: the spent budget."""

    trials: int
    budget_trials: int | None
    spent_s: float
    budget_s: float

    @property
    def share(self) -> float:
        """The spent share, 0 to 1, of the budget (trials or hours) that is nearer to its end."""
        by_trials = self.trials / self.budget_trials if self.budget_trials else 0.0
        return min(1.0, max(by_trials, self.spent_s / self.budget_s))


class Listener(LoadListener, Protocol):
    """Receives each step of a study, in order.

    A run has one listener and passes it to all its parts. For every trial, `trial_started` comes
    first, then `load_sampled` about once a second, then `trial_ended`; an interrupted trial has no
    `trial_ended`. The confirmation only calls `repeat_ended`. `note` may come at any time. All but
    `load_sampled` run in the thread of the event loop, so they must be short; an exception in them
    ends the run.

    To handle only some events, derive from `NullListener`:

        class Beep(NullListener):
            def trial_ended(self, proposal, result, progress):
                beep()
    """

    def study_started(self, name: str, progress: Progress) -> None:
        """The search begins, or resumes after an interruption."""

    def trial_started(self, proposal: Proposal) -> None:
        """The evaluation of a proposal begins."""

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Progress
    ) -> None:
        """A trial ended; its result is stored and the sampler has been told."""

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """A trial's configuration was measured again, and the repeat is stored."""


class NullListener(NullLoadListener):
    """Ignores every event; a base class for listeners that handle only some."""

    def study_started(self, name: str, progress: Progress) -> None:
        """Ignore it."""

    def trial_started(self, proposal: Proposal) -> None:
        """Ignore it."""

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Progress
    ) -> None:
        """Ignore it."""

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """Ignore it."""


class Broadcast:
    """Passes each event to several listeners, in order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def study_started(self, name: str, progress: Progress) -> None:
        """Pass it to each listener."""
        for listener in self._listeners:
            listener.study_started(name, progress)

    def trial_started(self, proposal: Proposal) -> None:
        """Pass it to each listener."""
        for listener in self._listeners:
            listener.trial_started(proposal)

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Progress
    ) -> None:
        """Pass it to each listener."""
        for listener in self._listeners:
            listener.trial_ended(proposal, result, progress)

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """Pass it to each listener."""
        for listener in self._listeners:
            listener.repeat_ended(step, result)

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        """Pass it to each listener."""
        for listener in self._listeners:
            listener.load_sampled(snapshot)

    def note(self, message: str) -> None:
        """Pass it to each listener."""
        for listener in self._listeners:
            listener.note(message)
