"""On several cards all of them try a configuration out before it is confirmed, and none is idle."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from helpers.benches import plan
from helpers.scripted import ScriptedEvaluator, physics
from helpers.testbed import OWNER, SPEC, Testbed

from tuner.analysis.recommendation.recommend import recommend
from tuner.configuration import Configuration
from tuner.evaluation.evaluator import Evaluation
from tuner.records import Measurement, Timing
from tuner.slo import Slo
from tuner.store import Store
from tuner.study.confirmation.members import AIM_FROM
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.loop import StudyRun
from tuner.study.workers.card_baselines import CardBaselines
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker

WIDE = SPEC.model_copy(update={"trials": 24, "slos": (Slo("p99_tpot_ms", 85.0),)})
CARDS = ("a", "b", "c")
MEMORY = {"gpu_memory_utilization": 0.9}


class Timed(ScriptedEvaluator):
    """One whose evaluations take virtual time, so that several go on at once."""

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        found = await super().evaluate(configuration, trial)
        return replace(found, timing=Timing(60.0 + trial % 7), is_virtual=True)

    async def confirm(self, configuration: Configuration, repeat: int, traffic: int) -> Evaluation:
        found = await super().confirm(configuration, repeat, traffic)
        return replace(found, timing=Timing(60.0), is_virtual=True)

    async def probe(self, configuration: Configuration, repeat: int, *_: object) -> Evaluation:
        return await self.evaluate(configuration, repeat)


def test_nothing_is_confirmed_before_all_is_tried(store: Store) -> None:
    bed = Testbed(store, spec=WIDE)
    workers = [Worker(Timed(), replace(OWNER, card=card)) for card in CARDS]
    asyncio.run(to_the_end(*begun(bed, Fleet(workers))))
    trials, repeats = store.trials("s"), store.repeats.of("s")
    extra = [t.ended_at for t in trials[24:] if t.ended_at is not None]
    rounds = [r for r in repeats if r.traffic is not None and r.traffic < AIM_FROM]
    assert extra and rounds and min(r.started_at for r in rounds) >= max(extra)
    assert recommend(store).best.configuration == Configuration(flags={"max_num_seqs": 256})


class LongWindows(Timed):
    """One whose windows on unseen traffic are longer than what is left of the search."""

    async def confirm(self, configuration: Configuration, repeat: int, traffic: int) -> Evaluation:
        return replace(await super().confirm(configuration, repeat, traffic), timing=Timing(600.0))


def test_cards_with_nothing_left_to_search_help_with_the_windows_on_unseen_traffic(
    store: Store,
) -> None:
    bed = Testbed(store, spec=WIDE)
    workers = [Worker(LongWindows(), replace(OWNER, card=card)) for card in CARDS]
    asyncio.run(begun(bed, Fleet(workers))[0].run())
    aims = [r for r in store.repeats.of("s") if r.traffic is not None and r.traffic >= AIM_FROM]
    assert len(aims) >= len(CARDS) and {r.owner.card for r in aims} == set(CARDS)
    assert [r.traffic for r in aims] == list(range(AIM_FROM, AIM_FROM + len(aims)))


def test_what_a_step_further_may_save_is_tried_once(store: Store) -> None:
    """Three trials show more sequences to be better; none has as many as the next."""
    proposals = Testbed(store).start()._proposals
    for seqs in (8, 16, 32, 128):
        if seqs != 128:  # the default's, which is queued
            proposals.enqueue({"log2_max_num_seqs": seqs.bit_length() - 1, **MEMORY})
        proposal = proposals.ask()
        found = physics(proposal.configuration, 0)
        assert isinstance(found, Measurement)
        proposals.tell_measured(proposal.number, found)
    tried = []
    while proposals.returns.enqueue_beyond(3):
        tried.append(proposals.ask().configuration.flags)
    assert {"max_num_seqs": 64, "gpu_memory_utilization": 0.9} in tried
    assert len(tried) == len({str(one) for one in tried})


def begun(bed: Testbed, fleet: Fleet) -> tuple[StudyRun, ConfirmationRun]:
    proposals = bed.start()._proposals
    costs = proposals.returns.expected_costs
    confirmation = ConfirmationRun("s", bed.spec, bed.store, fleet, bed.listener, costs)
    cards = CardBaselines("s", plan(), bed.store, fleet, bed.listener)
    run = StudyRun(
        "s", bed.spec, bed.store, proposals, fleet, bed.listener, confirmation, None, cards
    )
    return run, confirmation


async def to_the_end(run: StudyRun, confirmation: ConfirmationRun) -> None:
    await run.run()
    await confirmation.run(run.simplify)
