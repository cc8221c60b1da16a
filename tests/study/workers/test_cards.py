"""A study on several emulated cards: who measures what, on which card, and what a kill leaves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from helpers.scripted import Recorder

from tuner.analysis.cards.workers import worker_states
from tuner.catalog.gpu import card_factor
from tuner.doctor.stores import check_store
from tuner.errors import UsageError
from tuner.spec.study import StudySpec
from tuner.store import ProbeKind, Store
from tuner.study.inputs.moved import MovedTo
from tuner.study.run import resume_study, start_study
from tuner.study.workers.cards import cards_of

SPEC = StudySpec(
    study="s",
    model="meta-llama/Llama-3.1-8B-Instruct",
    emulate="H100-SXM",
    space="power",
    slo=("p99_tpot_ms<=40",),
    request_rate=4.0,
    trials=6,
    sampler="random",
    window_s=10.0,
    confirm_window_s=10.0,
    confirm_repeats=2,
    checks=False,
    cards=3,
)
CARDS = {"H100-SXM:0", "H100-SXM:1", "H100-SXM:2"}


def test_every_card_measures_the_default_and_takes_part(store: Store) -> None:
    asyncio.run(start_study(SPEC, store, Recorder(), yes=True))
    trials, repeats = store.trials("s"), store.repeats.of("s")
    assert len(trials) >= 6 and {t.owner.card for t in trials} == CARDS
    probes = [p for p in store.repeats.probes("s") if p.kind is ProbeKind.CARD]
    first = trials[0]
    assert first.baseline and {p.owner.card for p in probes} == CARDS - {first.owner.card}
    assert all(p.trial == first.number and p.measurement for p in probes)
    # all of a round are compared with each other, so one card measures it
    cards = {r.traffic: set[str | None]() for r in repeats if r.measurement}
    for row in repeats:
        if row.measurement:
            cards[row.traffic].add(row.owner.card)
    rounds = [owners for number, owners in cards.items() if number is not None and number < 1000]
    assert all(len(owners) == 1 for owners in rounds)
    assert len(set.union(*rounds)) >= 2
    assert store.study("s").gpu == "H100-SXM"


def test_a_fleet_takes_the_time_of_its_slowest_part(store: Store) -> None:
    asyncio.run(start_study(SPEC.model_copy(update={"confirm": False}), store, Recorder()))
    rows = [*store.trials("s"), *store.repeats.every("s")]
    sums = dict.fromkeys(CARDS, 0.0)
    for row in rows:
        assert row.timing is not None and row.owner.card is not None
        sums[row.owner.card] += row.timing.elapsed_s
    assert store.study("s").spent_s == pytest.approx(max(sums.values()))


def test_a_study_goes_on_with_other_cards(store: Store) -> None:
    few = SPEC.model_copy(update={"confirm": False, "trials": 4})
    asyncio.run(start_study(few, store, Recorder()))
    moved = MovedTo(cards=len(CARDS) + 2)
    asyncio.run(resume_study("s", store, Recorder(), more_trials=4, moved=moved))
    trials = store.trials("s")
    assert len({t.number for t in trials}) == 8
    cards = [p.owner.card for p in store.repeats.probes("s") if p.kind is ProbeKind.CARD]
    assert len(cards) == len(CARDS) + 1  # the first cards did not measure it again
    assert {"H100-SXM:3", "H100-SXM:4"} < set(cards)


@pytest.mark.parametrize(("asked", "count"), [(2, 2), ("all", 8), ("3", 3)])
def test_cards_of_an_emulated_host(asked: object, count: int) -> None:
    spec = StudySpec.model_validate({**SPEC.model_dump(), "cards": asked})
    assert [card.name for card in cards_of(spec)] == [f"H100-SXM:{k}" for k in range(count)]


def test_all_gpus_is_a_worker_on_each() -> None:
    spec = StudySpec.model_validate({"model": "m", "emulate": "H100-SXM", "gpus": "all"})
    assert spec.cards == "all" and spec.gpus is None and len(cards_of(spec)) == 8


def test_more_cards_than_a_host_has_are_refused() -> None:
    spec = SPEC.model_copy(update={"cards": 5, "gpus": 2})
    with pytest.raises(UsageError, match="4 workers of 2 GPUs"):
        cards_of(spec)


def test_every_card_starts_the_default_at_once(store: Store) -> None:
    """Its launch is over on each when the first trial begins, as on one card."""
    spec = SPEC.model_copy(update={"confirm": False, "trials": 3})
    asyncio.run(start_study(spec, store, Recorder()))
    probes = [p for p in store.repeats.probes("s") if p.kind is ProbeKind.CARD]
    assert len(probes) == len(CARDS) - 1
    assert all(p.timing is not None and p.timing.launch_s is None for p in probes)


def test_an_outlier_is_named_and_left_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that takes 40 % more power than the others."""

    def factor(gpu: str, card: int) -> float:
        return 1.4 if card == 2 else card_factor(gpu, card)

    monkeypatch.setattr("tuner.catalog.gpu.card_factor", factor)
    listener, bad = Recorder(), "H100-SXM:2"
    spec = SPEC.model_copy(update={"confirm": False, "cards": 4, "trials": 8})
    asyncio.run(start_study(spec, store, listener))
    trials, probes = store.trials("s"), store.repeats.probes("s")
    assert len(trials) == 8 and {t.owner.card for t in trials} == {*CARDS, "H100-SXM:3"} - {bad}
    named = [note for note in listener.notes if "is an outlier" in note]
    assert len(named) == 1 and bad in named[0] and "energy beside the other cards" in named[0]
    states = {one.card: one.outlier for one in worker_states(trials, probes, datetime.now(UTC))}
    assert [card for card, outlier in states.items() if outlier is not None] == [bad]
    (told,) = [found for found in check_store(store.url) if "is an outlier" in found.message]
    assert bad in told.message
