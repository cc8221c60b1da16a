"""What repeats say of a member; those without traffic are of an older store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from helpers.night_rows import repeat, values
from helpers.records import trial_row

from tuner.analysis.verdicts import Confirmation, as_confirmed, confirmations
from tuner.configuration import Configuration
from tuner.measurement.statistics.compare import Verdict
from tuner.measurement.statistics.unseen_traffic import SloVerdict
from tuner.pictures import PictureChange
from tuner.records import Failure, FailureKind, Measurement
from tuner.slo import Slo
from tuner.store import RepeatRow, TrialRow

SLOS = (Slo("p99_tpot_ms", 50.0),)


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


# J/token of the default and of a member on the same twelve stretches, without any drift: by chance
# the member's ratio is higher wherever the default came first
BY_CHANCE = [
    *((0.224, 0.1429), (0.210, 0.1310), (0.222, 0.1401), (0.209, 0.1250), (0.226, 0.1430)),
    *((0.211, 0.1289), (0.209, 0.1319), (0.207, 0.1250), (0.197, 0.1240), (0.206, 0.1262)),
    *((0.206, 0.1298), (0.203, 0.1242)),
]


STEADY = [
    (0.21 * heavy, 0.13 * heavy * own)
    for heavy, own in zip(
        (1.0, 1.03, 0.98, 1.02, 0.97, 1.01) * 2, (1.0, 1.001, 1.002) * 4, strict=True
    )
]


@pytest.mark.parametrize(
    ("stretches", "by_step", "is_seen"),
    [(BY_CHANCE, 1.0, False), (STEADY, 1.0, False), (STEADY, 1.01, True)],
)
def test_a_drift_is_one_only_if_the_defaults_own_repeats_allow_it(
    stretches: list[tuple[float, float]], by_step: float, is_seen: bool
) -> None:
    rows: list[RepeatRow] = []
    for stretch, joules in enumerate(stretches):
        pair = list(enumerate(joules))
        for of, joule in pair if stretch % 2 == 0 else pair[::-1]:
            row = repeat(len(rows), of, values(joule * by_step ** len(rows), 30.0))
            rows.append(replace(row, traffic=stretch))
    energy = confirmations(TRIALS, rows, SLOS)[1].energy
    assert energy is not None
    assert energy.drift.seen == is_seen


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


def unseen(*repeats: tuple[int, int, Measurement]) -> dict[int, Confirmation]:
    """Return the verdicts of repeats as (traffic, trial, measurement)."""
    rows = [
        replace(repeat(i, of, result), traffic=traffic)
        for i, (traffic, of, result) in enumerate(repeats)
    ]
    return confirmations(TRIALS, rows, SLOS)


def test_energies_are_compared_on_the_same_traffic_whatever_it_asks_for() -> None:
    heavy = (1.0, 1.2, 0.9, 1.1)
    rows = [(n, 0, values(0.4 * h, 30.0)) for n, h in enumerate(heavy)]
    rows += [(n, 2, values(0.3 * h * (1.0 + 0.002 * n), 40.0)) for n, h in enumerate(heavy)]
    rows.append((7, 2, values(0.1, 40.0)))  # the default was not measured there
    found = unseen(*rows)[2]
    assert found.pairs == 4 and found.energy is not None and found.energy.interval is not None
    assert found.energy.difference == pytest.approx(-0.25, abs=0.005)
    assert found.energy.interval.half_width < 0.01
    assert found.energy.verdict is Verdict.BETTER


def test_what_else_changes_is_compared_on_the_same_traffic_too() -> None:
    heavy = (1.0, 1.2, 0.9)
    rows = [(n, 0, values(0.4, 30.0 * h)) for n, h in enumerate(heavy)]
    rows += [(n, 2, values(0.3, 45.0 * h)) for n, h in enumerate(heavy)]
    rows.append((7, 0, values(0.4, 90.0)))  # busy traffic that only the default had
    found = unseen(*rows)
    assert found[2].changes["p99_tpot_ms"] == pytest.approx(0.5)
    assert found[0].changes["p99_tpot_ms"] == pytest.approx(0.0)
    default_ms = found[0].estimates["p99_tpot_ms"].mean
    assert found[2].estimates["p99_tpot_ms"].mean / default_ms - 1.0 < 0.2


def test_the_slo_has_to_hold_on_traffic_that_was_not_measured() -> None:
    near = [(n, 1, values(0.3, tpot)) for n, tpot in enumerate((44.0, 49.5, 46.0, 48.0))]
    far = [(n, 2, values(0.3, tpot)) for n, tpot in enumerate((34.0, 39.0, 36.0, 38.0))]
    known = unseen(*near, *far)
    assert known[1].slo is SloVerdict.UNCERTAIN  # though each window met it
    assert known[2].slo is SloVerdict.MET
    assert unseen(*far[:3])[2].slo is SloVerdict.UNCERTAIN  # three windows are too few
    hopeless = [(n, 1, values(0.3, t)) for n, t in enumerate((40.0, 52.0, 44.0, 49.0, 51.0))]
    found = unseen(*hopeless)[1]
    assert found.is_hopeless or found.slo is SloVerdict.MISSED


def test_repeats_of_an_older_tuner_give_way_to_those_on_unseen_traffic() -> None:
    rows = [repeat(0, 2, values(0.3, 10.0)), replace(repeat(1, 2, values(0.3, 40.0)), traffic=0)]
    found = confirmations(TRIALS, rows, SLOS)[2]
    assert found.repeats == 1 and found.estimates["p99_tpot_ms"].mean == pytest.approx(40.0)


def test_a_member_that_answers_fewer_questions_right_is_dropped() -> None:
    def graded(number: int, of: int, right: int) -> RepeatRow:
        grades = tuple(n < right for n in range(200))
        return replace(repeat(number, of, values(0.3, 30.0)), grades=grades)

    rows = [graded(0, 0, 150), graded(1, 1, 149), graded(2, 2, 120)]
    rows += [replace(row, number=row.number + 3, grades=None) for row in rows]
    known = confirmations(TRIALS, rows, SLOS, most_drop=0.01)
    assert known[0].quality is not None and known[0].quality.drop == 0.0
    assert known[1].is_confirmed and not known[1].loses_quality
    assert known[2].is_dropped and known[2].loses_quality
    assert known[2].quality is not None
    assert known[2].quality.drop == pytest.approx(0.15)
    assert known[2].quality.p_value < 1e-6
    assert not confirmations(TRIALS, rows, SLOS, most_drop=0.2)[2].is_dropped
    assert "60.0 % right" in str(known[2].quality)


def test_a_member_that_changes_pictures_too_much_is_dropped() -> None:
    """The default's own pictures differ between launches: what a member differs is beyond that."""

    def seen(number: int, of: int, ssim: float | None) -> RepeatRow:
        made = None if ssim is None else (PictureChange("a boat", 1, 30.0, ssim, 1, b"", b""),)
        return replace(repeat(number, of, values(0.3, 30.0)), pictures=made)

    rows = [seen(0, 0, 0.9), seen(1, 1, 0.85), seen(2, 2, 0.5)]
    rows += [seen(row.number + 3, row.trial, None) for row in rows]
    known = confirmations(TRIALS, rows, SLOS, most_picture_drop=0.3)
    assert [known[n].loses_quality for n in (0, 1, 2)] == [False, False, True]
    assert known[2].own_ssim == 0.9
    assert not confirmations(TRIALS, rows, SLOS, most_picture_drop=0.5)[2].is_dropped
