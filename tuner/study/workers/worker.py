"""Worker: an evaluator with the card that it measures on."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.evaluation.evaluator import Evaluator
from tuner.store import TrialOwner


@dataclass(frozen=True, slots=True)
class Worker:
    """Evaluates one configuration at a time.

    `owner` is written beside everything that it measures. Its `card` is None in a study on one
    worker, which compares nothing across cards.
    """

    evaluator: Evaluator
    owner: TrialOwner

    @property
    def card(self) -> str | None:
        """The card that it measures on."""
        return self.owner.card
