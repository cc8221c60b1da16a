"""Levels of thinking in a confirmation: the questions are asked at each of them."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.analysis.tasks.levels import best_of_levels
from tuner.slo import Slo
from tuner.store import RepeatKind, RepeatRow, TrialRow
from tuner.study.confirmation.plan import Step

_STRETCH = 0  # of the first round, on which the baseline was measured


def level_steps(
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    slos: Sequence[Slo],
    default: str | None,
) -> list[Step]:
    """Return the best trial of each level none of whose trials has answered the questions.

    A level that uses more energy is on no front, and would not be repeated; what it gets right for
    that energy is still asked. `default` is the level of a trial that sets none.
    """
    graded = {row.trial for row in repeats if row.grades is not None}
    best = best_of_levels(trials, slos, default, graded)
    return [
        Step(trial, RepeatKind.CONFIRMATION, _STRETCH)
        for trial in best.values()
        if trial.number not in graded and not trial.baseline
    ]
