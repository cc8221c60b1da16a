"""What repeats say of a member, and which comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from helpers.night_rows import repeat, values
from helpers.records import trial_row
from helpers.scripted import measurement

from tuner.analysis.verdicts import Confirmation, SloVerdict, as_confirmed, confirmations
from tuner.configuration import Configuration
from tuner.measurement.statistics.compare import Verdict
from tuner.records import Failure, FailureKind, Measurement, Timing
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store import RepeatKind, RepeatRow, TrialRow
from tuner.study.confirmation.plan import (
    Goal,
    clean_s,
    may_go_on,
    next_step,
    reserve_s,
    spread_is_due,
)

SLOS = (Slo("p99_tpot_ms", 50.0),)
GOAL = Goal(SLOS, (Objective.parse("energy_per_output_token_j"), Objective.parse("p99_tpot_ms")), 3)


def trial(number: int, energy_j: float, tpot_ms: float) -> TrialRow:
    flags = {} if number == 0 else {"max_num_seqs": number}
    return trial_row(number, values(energy_j, tpot_ms), Configuration(flags=flags))


TRIALS = [trial(0, 0.40, 30.0), trial(1, 0.30, 40.0), trial(2, 0.25, 48.0), trial(3, 0.5, 60.0)]


def judged(
    *repeats: tuple[int, Measurement | Failure], trials: Sequence[TrialRow] = TRIALS
) -> dict[int, Confirmation]:
    rows = [repeat(i, of, result) for i, (of, result) in enumerate(repeats)]
    return confirmations(trials, rows, SLOS)


def test_repeats_confirm_and_the_estimate_replaces_the_lucky_search() -> None:
    known = judged(
        (0, values(0.400, 30.0)),
        (2, values(0.271, 48.0)),
        (0, values(0.402, 30.2)),
        (2, values(0.269, 48.3)),
        (0, values(0.401, 30.1)),
    )
    member = known[2]
    assert member.is_confirmed and member.slo is SloVerdict.MET and member.repeats == 2
    assert member.energy is not None and member.energy.verdict is Verdict.BETTER
    assert member.energy.difference == pytest.approx(0.27 / 0.401 - 1, abs=1e-3)
    assert member.is_decided(most_repeats=3)
    shown = as_confirmed(TRIALS[2], known).measurement
    assert shown is not None and shown.metrics["p99_tpot_ms"] == pytest.approx(48.15, abs=1e-3)
    stored = TRIALS[2].measurement
    assert stored is not None and stored.metrics["p99_tpot_ms"] == 48.0


def test_a_saving_within_the_noise_is_tied() -> None:
    known = judged(
        (0, values(0.40, 30.0)),
        (1, values(0.395, 40.0)),
        (0, values(0.41, 30.0)),
        (1, values(0.405, 40.0)),
        (0, values(0.39, 30.0)),
    )
    energy = known[1].energy
    assert energy is not None and energy.verdict is Verdict.TIED
    assert not known[1].is_decided(most_repeats=3)  # a third may tell
    assert known[1].is_decided(most_repeats=2)


def test_a_clock_that_is_set_back_moves_no_repeat_before_another() -> None:
    """The machine drifts by 3 % a repeat; by the wall clock the second half ran first."""
    energies = [(0, 0.40), (1, 0.36), (0, 0.424), (1, 0.382), (0, 0.45), (1, 0.405), (0, 0.477)]
    as_they_ran = [repeat(n, of, values(j, 30.0)) for n, (of, j) in enumerate(energies)]
    hour = timedelta(hours=1)
    set_back = [
        row if row.number < 3 else replace(row, started_at=row.started_at - hour, ended_at=None)
        for row in as_they_ran
    ]
    expected = confirmations(TRIALS, as_they_ran, SLOS)[1].energy
    found = confirmations(TRIALS, set_back, SLOS)[1].energy
    assert expected is not None and found is not None
    assert expected.drift.seen and expected.verdict is Verdict.BETTER
    assert found.verdict is Verdict.BETTER
    assert found.difference == pytest.approx(expected.difference, abs=0.01)
    assert found.drift.change == pytest.approx(expected.drift.change, abs=0.01)


def test_an_interval_across_the_limit_is_uncertain_and_an_estimate_beyond_it_is_off() -> None:
    known = judged(
        (0, values(0.4, 30.0)),
        (2, values(0.25, 49.0)),
        (1, values(0.3, 50.4)),
        (0, values(0.4, 31.0)),
        (2, values(0.25, 49.8)),
        (1, values(0.3, 50.2)),
    )
    assert known[2].slo is SloVerdict.UNCERTAIN and known[2].is_confirmed
    assert known[1].slo is SloVerdict.MISSED and known[1].is_dropped


def test_an_slo_is_surely_met_only_with_99_percent() -> None:
    found = judged(*((1, values(0.3, tpot)) for tpot in (46.0, 48.0, 47.0, 46.0, 48.0)))[1]
    interval = found.estimates["p99_tpot_ms"].interval
    assert interval is not None and interval.high < 49.0 and found.slo is SloVerdict.MET
    near = judged(*((1, values(0.3, tpot)) for tpot in (47.6, 49.6, 48.6, 47.6, 49.6)))[1]
    interval = near.estimates["p99_tpot_ms"].interval
    assert interval is not None and interval.high < 50.0  # of 95 %
    assert near.slo is SloVerdict.UNCERTAIN


def test_one_repeat_confirms_nothing() -> None:
    known = judged((0, values(0.4, 30.0)), (2, values(0.25, 48.0)))
    assert not known[2].is_confirmed and not known[2].is_dropped
    assert as_confirmed(TRIALS[2], known) == TRIALS[2]


def test_a_configuration_that_dies_twice_or_does_not_start_is_dropped() -> None:
    died = Failure(FailureKind.UNSTABLE, "the server died")
    assert not judged((2, died))[2].is_dropped
    assert judged((2, died), (2, died))[2].fault == "the server died"
    assert judged((2, Failure(FailureKind.CONFIGURATION, "oom")))[2].fault == "oom"
    assert not judged((2, Failure(FailureKind.INFRASTRUCTURE, "port taken")))[2].is_dropped


def test_agreement_is_between_launches_and_the_default_has_its_own() -> None:
    same, other = ((1, 2), (3, 4)), ((1, 2), (3, 9))
    rows = [
        repeat(0, 0, values(0.4, 30.0), same),
        repeat(1, 2, values(0.25, 48.0), other),
        repeat(2, 0, values(0.4, 30.0), same),
    ]
    known = confirmations(TRIALS, rows, SLOS)
    default, member = known[0].agreement, known[2].agreement
    assert default is not None and (default.identical, default.compared) == (1.0, 2)
    assert member is not None and (member.identical, member.compared) == (0.5, 4)


def test_members_are_repeated_in_turn_between_baselines_until_decided() -> None:
    rows: list[RepeatRow] = []
    order: list[int] = []
    since: int | None = None
    noise = [1.0, 1.01, 0.99, 1.005, 0.995, 1.0, 1.01, 0.99, 1.0, 1.0, 1.0, 1.0]
    while step := next_step(GOAL, TRIALS, rows, since_baseline=since):
        number, found = step.trial.number, TRIALS[step.trial.number].measurement
        assert found is not None and len(order) < len(noise)
        factor = noise[len(order)]
        again = {name: value * factor for name, value in found.metrics.items()}
        rows.append(repeat(len(rows), number, measurement(**again)))
        since = 0 if number == 0 else (since or 0) + 1
        order.append(number)
    # 0 is on the front as the default; 3 missed the SLO; 2 is best, and comes until it is settled
    assert order[:6] == [0, 2, 2, 0, 2, 1]
    assert order[-1] == 0
    known = confirmations(TRIALS, rows, SLOS)
    assert all(known[n].is_confirmed for n in (0, 1, 2)) and 3 not in known


def test_what_is_dropped_makes_room_for_the_next() -> None:
    trials = [trial(0, 0.4, 30.0), trial(1, 0.2, 49.0), trial(2, 0.3, 49.5)]  # 1 dominates 2
    rows = [repeat(0, 1, values(0.2, 55.0)), repeat(1, 1, values(0.2, 55.0))]
    step = next_step(GOAL, trials, rows, since_baseline=0)
    assert step is not None and step.trial.number == 2


def test_a_few_repeats_cover_the_whole_front() -> None:
    front = [(0.20, 49.0), (0.21, 48.0), (0.22, 47.0), (0.24, 30.0), (0.25, 29.5), (0.40, 10.0)]
    trials = [trial(0, 0.5, 60.0), *(trial(n, *v) for n, v in enumerate(front, start=1))]
    rows = [repeat(0, 0, values(0.5, 60.0))]
    order = []
    for _ in range(6):
        step = next_step(GOAL, trials, rows, since_baseline=len(rows) - 1)
        if step is not None and step.kind is RepeatKind.BASELINE:
            rows.append(repeat(len(rows), 0, values(0.5, 60.0)))
            step = next_step(GOAL, trials, rows, since_baseline=0)
        assert step is not None
        again = step.trial.measurement
        assert again is not None
        rows.append(repeat(len(rows), step.trial.number, again))
        order.append(step.trial.number)
    # the least energy until it is settled, then the knee, the fastest, and what lies between
    assert order == [1, 1, 4, 6, 3, 4]


def test_time_that_is_left_goes_to_the_best_that_may_miss_the_slo() -> None:
    trials = [trial(0, 0.5, 60.0), trial(1, 0.20, 49.0), trial(2, 0.30, 30.0)]
    scatter = (49.8, 46.9, 52.7)
    rows = [repeat(0, 0, values(0.5, 60.0))]
    rows += [repeat(len(rows) + n, 1, values(0.2, tpot)) for n, tpot in enumerate(scatter)]
    rows += [repeat(len(rows) + n, 2, values(0.3, 30.0)) for n in range(3)]
    known = confirmations(trials, rows, SLOS)
    assert known[1].slo is SloVerdict.UNCERTAIN and known[1].is_decided(GOAL.most_repeats)
    step = next_step(GOAL, trials, rows, since_baseline=0)
    assert step is not None and step.trial.number == 1
    rows += [repeat(len(rows) + n, 1, values(0.2, scatter[n % 3])) for n in range(15)]
    assert confirmations(trials, rows, SLOS)[1].slo is SloVerdict.UNCERTAIN
    assert next_step(GOAL, trials, rows, since_baseline=0) is None  # 18 are enough


def test_another_member_has_a_turn_after_four_of_the_leader() -> None:
    trials = [trial(0, 0.5, 60.0), trial(1, 0.20, 49.0), trial(2, 0.30, 30.0), trial(3, 0.4, 20.0)]
    scatter = (49.8, 46.9, 52.7)  # about the limit of 50
    rows = [repeat(0, 0, values(0.5, 60.0))]
    order = []
    for _ in range(10):
        step = next_step(GOAL, trials, rows, since_baseline=1)
        assert step is not None
        number = step.trial.number
        again = values(0.2, scatter[len(rows) % 3]) if number == 1 else step.trial.measurement
        assert again is not None
        rows.append(repeat(len(rows), number, again))
        order.append(number)
    assert order == [1, 1, 1, 1, 2, 1, 1, 1, 1, 3]


def test_time_is_learned_and_reserved_up_to_two_fifths() -> None:
    assert clean_s([]) is None
    tooks = [Timing(250.0, 150.0), Timing(90.0, None), Timing(92.0, None)]
    assert clean_s(tooks) == pytest.approx(92.0 + 150.0)
    assert reserve_s(8 * 3600.0, 4, None) == 0.0
    assert reserve_s(float("inf"), 4, 240.0) == 0.0
    planned = (4 * 2.5 + 15) * (1 + 1 / 3) + 1
    assert reserve_s(8 * 3600.0, 4, 240.0) == pytest.approx(240.0 * planned)
    assert reserve_s(3600.0, 8, 240.0) == 1440.0


def test_how_long_it_may_go_on() -> None:
    rows = [repeat(i, i % 2, values(0.3, 40.0)) for i in range(6)]  # 240 s each
    hour_s = 3600.0
    assert may_go_on(hour_s, None, 3000.0, rows, 240.0)
    assert not may_go_on(hour_s, None, 3500.0, rows, 240.0)
    # the hours are spent, the share for a confirmation is not
    assert may_go_on(hour_s, None, 3700.0, rows[:2], 240.0)
    assert may_go_on(float("inf"), 4, 0.0, [repeat(i, 1, values(1, 1)) for i in range(5)], None)
    six = [repeat(i, 1, values(1, 1)) for i in range(6)]
    assert not may_go_on(float("inf"), 4, 0.0, six, None)
    assert may_go_on(float("inf"), 60, 0.0, six, None)


def test_the_default_is_spread_over_the_search() -> None:
    one = [repeat(0, 0, values(0.4, 30.0))]
    assert not spread_is_due(0.3, 60, [])
    assert spread_is_due(0.34, 60, [])
    assert not spread_is_due(0.5, 60, one)
    assert spread_is_due(0.67, 60, one)
    assert spread_is_due(0.41, None, one)  # of the hours, three fifths are the search's
    assert not spread_is_due(0.39, None, one)
    assert not spread_is_due(0.9, 6, [])  # too short to drift
