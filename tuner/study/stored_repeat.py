"""Repeats and probes: measured, stored, and counted against the budget."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tuner.evaluation.evaluator import Evaluation
from tuner.records import Load, Timing
from tuner.store import ProbeKind, RepeatKind, Store, TrialOwner


@dataclass(frozen=True, slots=True)
class RepeatStore:
    """Measures trials of one study again; a kill loses only the measurement that runs."""

    name: str
    store: Store
    owner: TrialOwner

    async def measure(
        self,
        trial: int,
        kind: RepeatKind | ProbeKind,
        evaluate: Callable[[int], Awaitable[Evaluation]],
        traffic: int | None,
        load: Load | None = None,
    ) -> tuple[Evaluation, Timing]:
        """Run `evaluate` with the repeat's number and store its result; return both and the time.

        The time is what it takes from the budget, s (virtual on the emulator).
        """
        began_s = time.monotonic()
        repeat = self.store.repeats.begin(self.name, trial, kind, self.owner, traffic, load)
        evaluation = await evaluate(repeat)
        spent = evaluation.spent(time.monotonic() - began_s)
        self.store.repeats.save(
            self.name,
            repeat,
            evaluation.result,
            evaluation.raw,
            timing=spent,
            warnings=evaluation.warnings,
            answers=evaluation.answers,
            grades=evaluation.grades,
        )
        self.store.add_spent_s(self.name, spent.elapsed_s)
        return evaluation, spent
