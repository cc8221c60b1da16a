"""The default on each card: a card that is only busy for a while is waited for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from helpers.benches import plan
from helpers.scripted import ScriptedEvaluator
from helpers.testbed import OWNER, Testbed

from tuner.configuration import Configuration
from tuner.evaluation.evaluator import Evaluation
from tuner.records import Failure, FailureKind, Timing
from tuner.store import Store
from tuner.study.durability import patience as patience_module
from tuner.study.loop import StudyRun
from tuner.study.workers.card_baselines import CardBaselines
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker


class Card(ScriptedEvaluator):
    """One whose first probes fail."""

    def __init__(self, *failures: Failure) -> None:
        super().__init__()
        self._failures = list(failures)

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        await asyncio.sleep(0.1)  # the other card is measured meanwhile
        return replace(await super().evaluate(configuration, trial), is_virtual=False)

    async def probe(self, configuration: Configuration, repeat: int, *_: object) -> Evaluation:
        if self._failures:
            return Evaluation(self._failures.pop(0), None, (), Timing(1.0))
        return await self.evaluate(configuration, repeat)


@pytest.mark.parametrize(
    ("kind", "failures", "measured"),
    [(FailureKind.BUSY, 5, 1), (FailureKind.INFRASTRUCTURE, 2, 0)],
)
def test_a_busy_card_is_no_attempt(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: FailureKind, failures: int, measured: int
) -> None:
    for name in ("FIRST_WAIT_S", "LONGEST_WAIT_S", "LOOK_S"):
        monkeypatch.setattr(patience_module, name, 0.001)
    failure = Failure(kind, "others use the GPU")
    cards = (Card(), Card(*[failure] * 5))
    fleet = Fleet(
        [Worker(c, replace(OWNER, card=name)) for c, name in zip(cards, "ab", strict=True)]
    )
    bed = Testbed(store)
    proposals = bed.start()._proposals
    baselines = CardBaselines("s", plan(), store, fleet, bed.listener)
    run = StudyRun("s", bed.spec, store, proposals, fleet, bed.listener, None, None, baselines)
    asyncio.run(run.run())
    probes = [p for p in store.repeats.probes("s") if p.owner.card == "b"]
    assert [p.measurement is not None for p in probes] == [False] * failures + [True] * measured
    waits = [e for e in store.events("s") if e.kind == "waiting"]
    assert len(waits) == (failures if kind is FailureKind.BUSY else 0)
