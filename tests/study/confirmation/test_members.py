"""Who stands in a confirmation, and who is measured next, by what the repeats left can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from helpers.night_rows import repeat, values
from helpers.records import trial_row

from tuner.configuration import Configuration
from tuner.measurement.statistics.unseen_traffic import SloVerdict
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store import RepeatKind, RepeatRow, TrialRow
from tuner.study.confirmation.members import AIM_FROM, Goal, members
from tuner.study.confirmation.plan import aim_step, next_step

OBJECTIVES = ("energy_per_output_token_j", "p99_tpot_ms")
GOAL = Goal((Slo("p99_tpot_ms", 50.0),), tuple(map(Objective.parse, OBJECTIVES)), 4)
# one of the ten is heavy
HEAVY = (0.94, 1.05, 0.97, 1.17, 0.92, 1.04, 1.0, 0.96, 1.08, 0.98)


def trial(number: int, energy_j: float, tpot_ms: float) -> TrialRow:
    knobs = Configuration(flags={"max_num_seqs": number} if number else {})
    return replace(trial_row(number, values(energy_j, tpot_ms), knobs), baseline=number == 0)


def night(
    trials: Sequence[TrialRow], windows: Sequence[tuple[int, int, float]], energy: float = 1.0
) -> list[RepeatRow]:
    """Return repeats of trials, each on a stretch that is so heavy: (trial, stretch, heavy)."""
    rows = []
    for number, stretch, heavy in windows:
        found = trials[number].measurement
        assert found is not None
        energy_j, tpot_ms = (found.metrics[name] for name in OBJECTIVES)
        kind = RepeatKind.CONFIRMATION if number else RepeatKind.BASELINE
        row = repeat(len(rows), number, values(energy_j * energy, tpot_ms * heavy))
        rows.append(replace(row, traffic=stretch, kind=kind))
    return rows


def first(trials: Sequence[TrialRow], rows: Sequence[RepeatRow], left: int | None) -> int:
    return members(GOAL, trials, rows, GOAL.verdicts(trials, rows), left)[0].number


@pytest.mark.parametrize(
    ("left", "expected"),
    [(None, 1), (30, 1), (8, 2), (5, 2), (4, 1)],  # 4: three windows of 2 and two pairs are 5
)
def test_the_last_repeats_go_to_what_they_can_still_show(left: int | None, expected: int) -> None:
    """Else a night ends with the default, and with what would save most still in doubt."""
    trials = [trial(0, 0.40, 30.0), trial(1, 0.26, 42.0), trial(2, 0.265, 40.5)]
    windows = [(0, stretch, HEAVY[stretch]) for stretch in range(3)]
    rows = night(trials, windows + [(1, stretch, by) for stretch, by in enumerate(HEAVY[:5])])
    known = GOAL.verdicts(trials, rows)[1]
    assert known.slo is SloVerdict.UNCERTAIN and not known.is_hopeless
    assert first(trials, rows, left) == expected


def test_what_meets_the_slos_and_only_lacks_the_default_beside_it_is_finished_first() -> None:
    trials = [trial(0, 0.40, 30.0), trial(1, 0.24, 43.5), trial(2, 0.36, 36.0)]
    rows = night(trials, [(1, stretch, by) for stretch, by in enumerate(HEAVY[:5])])
    own = night(trials, [(2, 10 + stretch, by) for stretch, by in enumerate(HEAVY[:3])])
    rows += [replace(row, number=len(rows) + n) for n, row in enumerate(own)]
    known = GOAL.verdicts(trials, rows)
    assert known[1].slo is SloVerdict.UNCERTAIN
    assert known[2].slo is SloVerdict.MET and not known[2].is_met
    assert first(trials, rows, 8) == 2


@pytest.mark.parametrize(
    ("left", "expected"), [(2, [(2, 4), (2, 3)]), (3, [(2, 4), (2, 5), (0, 5)])]
)
def test_the_last_repeats_pair_what_meets_the_slos_with_windows_that_the_default_has(
    left: int, expected: list[tuple[int, int]]
) -> None:
    """A night ended with the default: there was no room for two windows of both."""
    trials = [trial(0, 0.40, 30.0), trial(1, 0.24, 43.5), trial(2, 0.36, 36.0)]
    rows = night(trials, [(n, stretch, HEAVY[stretch]) for stretch in range(5) for n in (0, 1)])
    own = night(trials, [(2, AIM_FROM + stretch, by) for stretch, by in enumerate(HEAVY[:3])])
    rows += [replace(row, number=len(rows) + n) for n, row in enumerate(own)]
    steps = []
    for still in range(left, 0, -1):
        step = next_step(GOAL, trials, rows, left=still)
        assert step is not None
        steps.append((step.trial.number, step.traffic))
        found = night(trials, [(*steps[-1], HEAVY[step.traffic])])
        rows += [replace(row, number=len(rows)) for row in found]
    assert steps == expected
    assert GOAL.verdicts(trials, rows)[2].is_met


@pytest.mark.parametrize(
    ("second_ms", "left", "expected"),
    [(43.5, None, 3), (43.5, 11, 3), (43.5, 10, 2), (43.5, 4, 2), (40.5, 10, 3)],
)
def test_the_last_repeats_make_sure_of_an_answer_where_all_that_is_met_is_so_narrowly(
    second_ms: float, left: int | None, expected: int
) -> None:
    """One heavy window of a better one put the only two that were met in doubt again."""
    trials = [
        *(trial(0, 0.40, 30.0), trial(1, 0.29, 44.0)),
        *(trial(2, 0.30, second_ms), trial(3, 0.27, 45.0)),
    ]
    rows = night(trials, [(n, stretch, by) for stretch, by in enumerate(HEAVY) for n in (0, 1)])
    own = night(trials, [(2, stretch, HEAVY[stretch]) for stretch in range(4)])
    rows += [replace(row, number=len(rows) + n) for n, row in enumerate(own)]
    known = GOAL.verdicts(trials, rows)
    assert known[1].is_met and known[2].is_met
    assert first(trials, rows, left) == expected


@pytest.mark.parametrize(("left", "expected"), [(None, 2), (9, 2), (5, 2), (4, 1), (0, 1)])
def test_what_the_repeats_left_cannot_confirm_is_not_tried(left: int, expected: int) -> None:
    trials = [trial(0, 0.40, 30.0), trial(1, 0.30, 36.0), trial(2, 0.25, 37.0)]
    rows = night(trials, [(n, stretch, 1.0) for stretch in range(4) for n in (0, 1)])
    assert GOAL.verdicts(trials, rows)[1].is_met
    assert first(trials, rows, left) == expected


def test_what_stays_in_doubt_makes_room_for_what_saves_less_while_nothing_holds() -> None:
    """Where the search was lucky with what leads, all others look as if they could not hold."""
    trials = [trial(0, 0.40, 30.0), trial(1, 0.26, 43.6), trial(2, 0.265, 43.0)]
    rows = night(trials, [(1, stretch, by) for stretch, by in enumerate(HEAVY)])
    known = GOAL.verdicts(trials, rows)[1]
    assert known.slo is SloVerdict.UNCERTAIN and not known.is_hopeless
    assert first(trials, rows, 30) == 2


def test_what_lies_between_takes_turns_with_what_stays_in_doubt() -> None:
    """Its one window of the search was an unlucky one; what uses more energy rather holds."""
    trials = [
        trial(0, 0.40, 30.0),
        trial(1, 0.36, 33.0),
        trial(2, 0.27, 44.5),
        trial(3, 0.30, 46.0),
    ]
    rows = night(trials, [(n, stretch, HEAVY[-stretch]) for stretch in range(4) for n in (0, 1)])
    assert first(trials, rows, None) == 2
    doubtful = night(trials, [(2, 4 + stretch, by) for stretch, by in enumerate(HEAVY)])
    rows += [replace(row, number=len(rows) + n) for n, row in enumerate(doubtful)]
    assert GOAL.verdicts(trials, rows)[2].slo is SloVerdict.UNCERTAIN
    assert first(trials, rows, None) == 3
    between = night(trials, [(3, 20 + stretch, 1.02) for stretch in range(3)])
    rows += [replace(row, number=len(rows) + n) for n, row in enumerate(between)]
    assert first(trials, rows, None) == 2


def test_one_pair_by_chance_does_not_hide_what_the_search_saw_save() -> None:
    trials = [trial(0, 0.40, 30.0), trial(1, 0.30, 36.0), trial(2, 0.285, 37.0)]
    rows = night(trials, [(n, stretch, 1.0) for stretch in range(4) for n in (0, 1)])
    unlucky = [*night(trials, [(0, 4, 1.0)]), *night(trials, [(2, 4, 1.0)], energy=1.05)]
    rows += [replace(row, number=len(rows) + n) for n, row in enumerate(unlucky)]
    assert first(trials, rows, None) == 2


def test_an_aim_goes_on_to_what_saves_more_once_the_first_meets_the_slos() -> None:
    trials = [trial(0, 0.40, 30.0), trial(1, 0.30, 38.0), trial(2, 0.26, 40.0)]
    rows = night(trials, [(1, AIM_FROM + n, by) for n, by in enumerate((1.0, 0.98, 1.01, 1.0))])
    assert GOAL.verdicts(trials, rows)[1].slo is SloVerdict.MET
    step = aim_step(GOAL, 1.0, 60, trials, rows)
    assert step is not None and step.trial.number == 2
