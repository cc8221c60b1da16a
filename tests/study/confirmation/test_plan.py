"""What is measured next, by what is stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.night_rows import repeat, values
from helpers.records import trial_row

from tuner.analysis.verdicts import confirmations
from tuner.configuration import Configuration
from tuner.measurement.statistics.unseen_traffic import SloVerdict
from tuner.records import Timing
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store import RepeatKind, RepeatRow, TrialRow
from tuner.study.confirmation.members import AIM_FROM, Goal
from tuner.study.confirmation.plan import (
    Step,
    aim_step,
    clean_s,
    may_aim,
    next_step,
    repeats_left,
    reserve_s,
)

SLOS = (Slo("p99_tpot_ms", 50.0),)
GOAL = Goal(SLOS, (Objective.parse("energy_per_output_token_j"), Objective.parse("p99_tpot_ms")), 4)


def trial(number: int, energy_j: float, tpot_ms: float) -> TrialRow:
    flags = {} if number == 0 else {"max_num_seqs": number}
    return trial_row(number, values(energy_j, tpot_ms), Configuration(flags=flags))


# 1 is too near the limit to hold elsewhere, 2 is the best that is not, 3 is fast
TRIALS = [trial(0, 0.40, 30.0), trial(1, 0.20, 49.0), trial(2, 0.25, 40.0), trial(3, 0.35, 25.0)]
TRAFFIC = (1.02, 0.97, 1.0, 1.04, 0.98, 1.01, 0.99, 1.03)


def measured_on(step: Step, number: int, slower: float = 1.0) -> RepeatRow:
    """Return what a step finds: each stretch is as heavy for all."""
    found = step.trial.measurement
    assert found is not None
    heavy = TRAFFIC[step.traffic % len(TRAFFIC)]
    energy_j, tpot_ms = (
        found.metrics[name] * heavy for name in ("energy_per_output_token_j", "p99_tpot_ms")
    )
    row = repeat(number, step.trial.number, values(energy_j, tpot_ms * slower))
    return replace(row, traffic=step.traffic, kind=step.kind)


def all_steps(trials: list[TrialRow], slower: float = 1.0) -> list[RepeatRow]:
    rows: list[RepeatRow] = []
    while step := next_step(GOAL, trials, rows):
        rows.append(measured_on(step, len(rows), 1.0 if step.trial.number == 0 else slower))
        assert len(rows) < 200
    return rows


def test_the_best_that_is_expected_to_hold_is_measured_beside_the_default() -> None:
    rows = all_steps(TRIALS)
    assert [(r.trial, r.traffic) for r in rows[:3]] == [(0, 0), (2, 0), (2, 1)]
    known = confirmations(TRIALS, rows, SLOS)
    assert known[2].slo is SloVerdict.MET and known[2].knows_energy
    assert known[2].pairs >= 3
    assert 1 not in known  # within the SLO in the search only
    assert 3 in known


def test_the_default_comes_first_of_even_rounds_and_last_of_odd_ones() -> None:
    rows = all_steps(TRIALS)
    paired = {r.traffic for r in rows if r.trial == 0}
    assert {0, 1, 2, 3} <= paired
    for number in paired:
        of_round = [r.trial for r in rows if r.traffic == number]
        assert of_round.count(0) == 1 and len(of_round) == len(set(of_round))
        if number is not None and number < 3:  # later ones may have the default for one more
            assert of_round[0 if number % 2 == 0 else -1] == 0


def test_the_plan_goes_on_from_what_is_stored() -> None:
    rows = all_steps(TRIALS)
    for count in range(len(rows)):
        step = next_step(GOAL, TRIALS, rows[:count])
        assert step is not None
        assert (step.trial.number, step.traffic) == (rows[count].trial, rows[count].traffic)


def test_what_misses_elsewhere_makes_room_for_the_next() -> None:
    rows = all_steps(TRIALS, slower=1.4)
    known = confirmations(TRIALS, rows, SLOS)
    assert known[2].slo is SloVerdict.UNCERTAIN and known[2].miss_chance is not None
    assert known[2].repeats == 1 and known[2].miss_chance > 0.5
    assert known[3].slo is SloVerdict.MET


def test_one_in_doubt_is_repeated_until_it_cannot_hold() -> None:
    rows = all_steps([TRIALS[0], trial(2, 0.25, 42.0)], slower=1.17)
    found = confirmations(TRIALS, rows, SLOS)[2]
    assert found.slo is SloVerdict.MISSED or found.is_hopeless or found.repeats == 24


def test_one_that_is_begun_and_expected_to_hold_is_finished_before_a_better_one() -> None:
    trials = [trial(0, 0.40, 30.0), trial(1, 0.38, 25.0), trial(2, 0.30, 35.0)]
    rows = all_steps(trials[:2])
    assert confirmations(trials[:2], rows, SLOS)[1].slo is SloVerdict.MET
    begun = next_step(GOAL, trials, rows)
    while begun is not None and begun.trial.number != 2:
        rows.append(measured_on(begun, len(rows)))
        begun = next_step(GOAL, trials, rows)
    assert begun is not None
    rows.append(measured_on(begun, len(rows)))
    better = trial(3, 0.28, 36.0)
    seen = []
    while step := next_step(GOAL, [*trials, better], rows):
        rows.append(measured_on(step, len(rows)))
        seen.append(step.trial.number)
        known = confirmations([*trials, better], rows, SLOS)
        if known[2].slo is SloVerdict.MET and known[2].knows_energy:
            break
    assert 3 not in seen
    later = next_step(GOAL, [*trials, better], rows)
    assert later is not None and later.trial.number in (0, 3)


@pytest.mark.parametrize(("own_windows", "expected"), [(3, 2), (17, 3)])
def test_what_stays_in_doubt_makes_room_for_what_can_still_be_shown(
    own_windows: int, expected: int
) -> None:
    trials = [
        trial(0, 0.40, 30.0),
        trial(1, 0.36, 30.0),
        trial(2, 0.27, 43.0),
        trial(3, 0.30, 42.0),
    ]
    rng = np.random.default_rng(3)
    rows: list[RepeatRow] = []

    def add(number: int, stretch: int, heavy: float) -> None:
        found = trials[number].measurement
        assert found is not None
        tpot_ms = found.metrics["p99_tpot_ms"] * heavy
        result = values(found.metrics["energy_per_output_token_j"], tpot_ms)
        kind = RepeatKind.BASELINE if number == 0 else RepeatKind.CONFIRMATION
        rows.append(replace(repeat(len(rows), number, result), traffic=stretch, kind=kind))

    for stretch, heavy in enumerate(np.exp(rng.normal(0.0, 0.09, 4 + own_windows))):
        paired = (0, 1) if stretch < 4 else (0, 2) if stretch < 7 else (2,)
        for number in paired:
            add(number, stretch, float(heavy))
    step = next_step(GOAL, trials, rows)
    assert step is not None and step.trial.number == expected


def test_a_default_that_nothing_beats_is_confirmed_itself() -> None:
    rows = all_steps([trial(0, 0.2, 20.0), trial(1, 0.3, 30.0)])
    assert [r.trial for r in rows] == [0] * 3
    assert all(r.kind is RepeatKind.BASELINE for r in rows)
    faster = all_steps([trial(0, 0.2, 30.0), trial(1, 0.3, 20.0)])
    assert [r.trial for r in faster] == [0] * 3  # its knob goes back


def test_where_nothing_is_within_the_margin_what_met_the_slo_is_tried() -> None:
    step = next_step(GOAL, [TRIALS[1]], [])
    assert step is not None and step.trial.number == 1


def test_a_member_that_keeps_failing_is_left_out() -> None:
    rows = [measured_on(Step(TRIALS[0], RepeatKind.BASELINE, 0), 0)]
    step = next_step(GOAL, TRIALS, rows, left_out=frozenset({2}))
    assert step is not None and step.trial.number == 3


def test_the_search_learns_on_unseen_traffic_where_to_aim() -> None:
    assert aim_step(GOAL, 0.3, 60, TRIALS, []) is None
    rows: list[RepeatRow] = []
    for share, count in ((0.36, 3), (0.5, 3), (0.71, 8), (1.0, 8)):
        while step := aim_step(GOAL, share, 60, TRIALS, rows):
            assert step.trial.number == 2 and step.traffic == AIM_FROM + len(rows)
            rows.append(measured_on(step, len(rows)))
        assert len(rows) == count
    step = next_step(GOAL, TRIALS, rows)
    assert step is not None and step.traffic == 0  # the confirmation has its own stretches
    assert aim_step(GOAL, 0.9, 12, TRIALS, []) is None  # too short a study
    assert aim_step(GOAL, 0.18, None, TRIALS, []) is not None  # the search has half of the hours
    assert may_aim(3600.0, rows[:2], 240.0) and not may_aim(3600.0, rows[:3], 240.0)


def test_time_is_learned_and_reserved_up_to_half_of_the_hours() -> None:
    assert clean_s([]) is None
    tooks = [Timing(250.0, 150.0), Timing(90.0, None), Timing(92.0, None)]
    assert clean_s(tooks) == pytest.approx(92.0 + 150.0)
    assert reserve_s(8 * 3600.0, 4, None) == 0.0
    assert reserve_s(float("inf"), 4, 240.0) == 0.0
    planned = (4 * 2.5 + 15) * (1 + 1 / 3) + 1
    assert reserve_s(8 * 3600.0, 4, 240.0) == pytest.approx(240.0 * planned)
    assert reserve_s(3600.0, 8, 240.0) == 1800.0
    two = [repeat(0, 1, values(1, 1)), repeat(1, 1, values(1, 1))]
    assert reserve_s(3600.0, 8, 240.0, two) == 1800.0 - 480.0


def test_how_many_repeats_are_left() -> None:
    rows = [repeat(i, i % 2, values(0.3, 40.0)) for i in range(8)]  # 240 s each
    hour_s = 3600.0
    assert repeats_left(hour_s, None, 3000.0, rows, 240.0) == 2
    assert repeats_left(hour_s, None, 3500.0, rows, 240.0) == 0
    assert repeats_left(hour_s, None, 3700.0, rows[:2], 240.0) == 0
    # the hours were spent before: a confirmation gets its share on top
    assert repeats_left(hour_s, None, 3700.0, rows[:2], 240.0, is_late=True) == 5
    assert repeats_left(hour_s, None, 3700.0, rows, 240.0, is_late=True) == 0
    # nobody knows yet how long one takes
    assert repeats_left(hour_s, None, 3000.0, [], None) is None
    twelve = [repeat(i, 1, values(1, 1)) for i in range(12)]
    assert repeats_left(float("inf"), 4, 0.0, twelve[:11], None) == 2  # and one of the default
    assert repeats_left(float("inf"), 4, 0.0, twelve, None) == 0
    assert repeats_left(float("inf"), 60, 0.0, twelve, None) == 24 - 12 + 2


def test_the_recommended_is_confirmed_on_two_cards() -> None:
    def on_card(rows: list[RepeatRow], card: str) -> list[RepeatRow]:
        """Return the rows with all that this card still measures, as one of several."""
        while step := next_step(GOAL, TRIALS, rows, card, is_one_of_several=True):
            row = measured_on(step, len(rows))
            rows = [*rows, replace(row, owner=replace(row.owner, card=card))]
            assert len(rows) < 200
        return rows

    first = on_card([], "a")
    best = {r.trial for r in first if r.traffic is not None} - {0}
    assert 2 in best
    rows = on_card(first, "b")
    more = rows[len(first) :]
    assert {r.trial for r in more if r.traffic == more[0].traffic} == {0, 2}  # with its pair
    assert on_card(rows, "a") == rows and on_card(rows, "c") == rows
