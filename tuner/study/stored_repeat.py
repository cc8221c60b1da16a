"""Repeats and probes: measured, stored, and counted against the budget."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tuner.evaluation.evaluator import BenchLostError, Evaluation
from tuner.records import Load
from tuner.store import ProbeKind, RepeatKind, Store
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker


def drop_interrupted(name: str, store: Store, note: Callable[[str], None]) -> None:
    """Delete the repeats and probes that a killed or interrupted tuner was measuring."""
    for trial in store.repeats.drop_running(name):
        message = f"the repeat of trial {trial} was interrupted and will be measured again"
        store.add_event(name, "interrupted", message, trial=trial)
        note(message)


@dataclass(frozen=True, slots=True)
class RepeatStore:
    """Measures trials of one study again; a kill loses only the measurement that runs."""

    name: str
    store: Store
    fleet: Fleet

    async def measure(
        self,
        worker: Worker,
        trial: int,
        kind: RepeatKind | ProbeKind,
        evaluate: Callable[[int], Awaitable[Evaluation]],
        traffic: int | None,
        load: Load | None = None,
    ) -> tuple[Evaluation, float]:
        """Run `evaluate` with the repeat's number and store its result; return it and the time.

        The time is what it takes from the budget, s (virtual on the emulator).
        """
        began_s = time.monotonic()
        repeat = self.store.repeats.begin(self.name, trial, kind, worker.owner, traffic, load)
        try:
            evaluation = await evaluate(repeat)
        except BenchLostError:
            self.store.repeats.drop(self.name, repeat)
            raise
        passed_s = await self.fleet.passed_s(evaluation, began_s)
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
            pictures=evaluation.pictures,
            spent_s=passed_s,
        )
        return evaluation, passed_s
