"""The end of the night on a scripted evaluator: what is measured, and what a death costs."""

from __future__ import annotations

import asyncio

import pytest
from helpers.scripted import infrastructure, measurement, physics
from helpers.testbed import SPEC, Died, Testbed

from tuner.analysis.verdicts import confirmations
from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError
from tuner.records import Failure, FailureKind, Measurement
from tuner.spec.study import StudySpec
from tuner.store import RepeatKind, Store
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.loop import StudyRun
from tuner.study.stored_repeat import drop_interrupted


def noisy(configuration: Configuration, repeat: int) -> Measurement | Failure:
    found = physics(configuration, repeat)
    assert isinstance(found, Measurement)
    factor = 1.0 + 0.002 * ((repeat * 7) % 5 - 2)
    return measurement(**{name: value * factor for name, value in found.metrics.items()})


def confirming(bed: Testbed) -> ConfirmationRun:
    bed.evaluator.again = noisy
    return ConfirmationRun("s", bed.spec, bed.store, bed.fleet, bed.listener)


def searched(store: Store, spec: StudySpec = SPEC) -> Testbed:
    bed = Testbed(store, spec=spec)
    bed.run()
    return bed


def test_the_front_is_confirmed_beside_the_default(store: Store) -> None:
    bed = searched(store)
    asyncio.run(confirming(bed).run())
    rows = store.repeats.of("s")
    for traffic in {row.traffic for row in rows}:
        kinds = [row.kind for row in rows if row.traffic == traffic]
        assert RepeatKind.BASELINE in (kinds[0], kinds[-1])
    known = confirmations(store.trials("s"), rows, SPEC.slos)
    confirmed = [n for n, found in known.items() if found.is_confirmed]
    assert len(confirmed) >= 3, {n: found.repeats for n, found in known.items()}
    assert [n for n, _ in bed.evaluator.confirmed] == list(range(len(rows)))
    assert len(store.trials("s")) == 8  # no trial was added
    assert store.study("s").spent_s == pytest.approx(80.0 + 10.0 * len(rows))
    assert len(bed.listener.repeated) == len(rows)
    again = confirming(bed)
    asyncio.run(again.run())
    assert store.repeats.of("s") == rows  # nothing is left to measure


def test_a_death_in_the_confirmation_costs_the_repeat_that_ran(store: Store) -> None:
    bed = searched(store)
    run = confirming(bed)

    def dying(configuration: Configuration, repeat: int) -> Measurement | Failure:
        if repeat == 3:
            raise Died
        return noisy(configuration, repeat)

    bed.evaluator.again = dying
    with pytest.raises(Died):
        asyncio.run(run.run())
    before = [r for r in store.repeats.of("s") if r.state == "measured"]
    assert len(before) == 3 and len(store.repeats.of("s")) == 4
    again = confirming(bed)
    drop_interrupted("s", store, bed.listener.note)
    asyncio.run(again.run())
    rows = store.repeats.of("s")
    assert rows[:3] == before
    assert {r.state for r in rows} == {"measured"}
    members = [r.trial for r in rows if r.kind is RepeatKind.CONFIRMATION]
    assert max(members.count(n) for n in members) <= SPEC.confirm_repeats


def test_a_member_that_misses_the_slo_again_is_dropped(store: Store) -> None:
    bed = searched(store)
    run = confirming(bed)

    def slower(configuration: Configuration, repeat: int) -> Measurement | Failure:
        found = noisy(configuration, repeat)
        assert isinstance(found, Measurement)
        slow = 1.0 if not configuration.knobs() else 20.0
        return measurement(**{**found.metrics, "p99_tpot_ms": found.metrics["p99_tpot_ms"] * slow})

    bed.evaluator.again = slower
    asyncio.run(run.run())
    known = confirmations(store.trials("s"), store.repeats.of("s"), SPEC.slos)
    assert all(found.is_dropped for number, found in known.items() if number != 0)


def test_a_machine_that_keeps_failing_needs_an_operator_and_is_resumed(store: Store) -> None:
    bed = searched(store)
    run = confirming(bed)
    bed.evaluator.again = lambda configuration, repeat: infrastructure()
    with pytest.raises(OperatorNeededError, match=r"memory held by somebody.*tuner resume s"):
        asyncio.run(run.run())
    assert len(bed.evaluator.confirmed) <= 9
    asyncio.run(confirming(bed).run())  # somebody fixed it
    assert any(r.measurement for r in store.repeats.of("s"))


def test_a_configurations_own_fault_is_not_tried_again(store: Store) -> None:
    bed = searched(store)
    run = confirming(bed)

    def refused(configuration: Configuration, repeat: int) -> Measurement | Failure:
        if configuration.knobs():
            return Failure(FailureKind.CONFIGURATION, "no memory")
        return noisy(configuration, repeat)

    bed.evaluator.again = refused
    asyncio.run(run.run())
    members = [r.trial for r in store.repeats.of("s") if r.kind is RepeatKind.CONFIRMATION]
    assert members and len(members) == len(set(members))


def test_hours_leave_room_for_the_confirmation(store: Store) -> None:
    spec = SPEC.model_copy(update={"trials": None, "hours": 400 / 3600, "slos": ()})
    bed = Testbed(store, spec=spec)
    confirmation = confirming(bed)
    plain = bed.start()
    search = StudyRun(
        "s",
        spec,
        store,
        plain._proposals,
        bed.fleet,
        bed.listener,
        confirmation,
    )
    asyncio.run(search.run())
    kinds = [r.kind for r in store.repeats.of("s")]
    assert kinds == [RepeatKind.CONFIRMATION] * 8  # to learn where the search has to aim
    assert 240.0 <= store.study("s").spent_s <= 330.0  # half is the confirmation's, with these
    asyncio.run(confirmation.run())
    assert 320.0 <= store.study("s").spent_s <= 400.0


def test_a_flat_search_stops_and_says_so(store: Store) -> None:
    spec = SPEC.model_copy(update={"trials": 60, "stop_when_flat": True})
    bed = Testbed(store, lambda c, n: measurement(
        energy_per_output_token_j=0.2, p99_tpot_ms=30.0), spec)  # fmt: skip
    bed.run()
    assert len(store.trials("s")) == 41
    assert any("has not grown in the last 40 evaluations" in note for note in bed.listener.notes)
    assert not SPEC.stops_when_flat
    assert SPEC.model_copy(update={"trials": None, "hours": 8.0}).stops_when_flat


@pytest.mark.parametrize("more_s", [0.0, 9.0, 25.0])
def test_what_the_checks_left_of_the_hours_goes_to_more_repeats(
    store: Store, more_s: float
) -> None:
    bed = searched(store, SPEC.model_copy(update={"trials": None, "hours": 140.0 / 3600.0}))
    run = confirming(bed)
    asyncio.run(run.run())
    before, ended_s = len(store.repeats.of("s")), store.study("s").spent_s
    assert 130.0 < ended_s <= 140.0
    asyncio.run(run.go_on(ended_s + more_s))
    assert len(store.repeats.of("s")) == before + more_s // 10.0
    assert store.study("s").spent_s <= ended_s + more_s
