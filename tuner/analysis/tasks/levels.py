"""Levels of thinking: what an answer takes at each, and what a correct one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.analysis.confirmed_front import ConfirmedFront
from tuner.analysis.outcomes import baseline_of, energy_j, measured, meets_slo, metric, ratio
from tuner.configuration import THINKING
from tuner.slo import Slo
from tuner.spec.stored import StoredSpec
from tuner.store.rows import TrialRow

_PER_TOKEN, _PER_REQUEST = "energy_per_output_token_j", "energy_per_request_j"


@dataclass(frozen=True, slots=True)
class LevelEnergy:
    """A level of thinking by its trial of least energy. None is unknown.

    Attributes:
        level: its name; None is what the workload's own thinking is called where it has no name.
        trial: its trial of least energy that meets every SLO, or of them all if none does.
        is_baseline: whether the baseline thinks at this level.
        tokens: output tokens of an answer, on average.
        energy_per_answer_j: of that trial.
        unchanged_j: with every other knob as the baseline has it.
        meets_slo: of that trial.
        right: the share of the study's questions that it answers right.
        energy_per_correct_answer_j: energy per answer / that share: wrong answers cost energy too.
        token_multiplier: tokens over those of the baseline's level.
        energy_multiplier: `unchanged_j` over the baseline's.
    """

    level: str | None
    trial: int
    is_baseline: bool
    tokens: float | None
    energy_per_answer_j: float | None
    unchanged_j: float | None
    meets_slo: bool | None
    right: float | None
    energy_per_correct_answer_j: float | None
    token_multiplier: float | None = None
    energy_multiplier: float | None = None


def thinking_levels(found: ConfirmedFront) -> tuple[LevelEnergy, ...]:
    """Return the levels, the baseline's first, then by tokens; none without the knob."""
    if not any(THINKING in trial.configuration.load for trial in found.trials):
        return ()
    default = StoredSpec.of(found.study).default_level
    graded = {n for n, known in found.confirmations.items() if known.quality is not None}
    best = best_of_levels(found.trials, found.slos, default, graded)
    levels = [_level(found, level, trial, default) for level, trial in best.items()]
    base = next((one for one in levels if one.is_baseline), None)
    beside = [
        one
        if base is None
        else replace(
            one,
            token_multiplier=ratio(one.tokens, base.tokens),
            energy_multiplier=ratio(one.unchanged_j, base.unchanged_j),
        )
        for one in levels
    ]
    return tuple(sorted(beside, key=lambda one: (not one.is_baseline, one.tokens or 0.0)))


def best_of_levels(
    trials: Sequence[TrialRow],
    slos: Sequence[Slo],
    default: str | None,
    graded: frozenset[int] | set[int] = frozenset(),
) -> dict[str | None, TrialRow]:
    """Return each level's trial of least energy: of those in `graded`, of those within the SLOs.

    `default` is the level of a trial that sets none.
    """
    best: dict[str | None, TrialRow] = {}
    known = [t for t in measured(trials) if energy_j(t) is not None]
    order = sorted(
        known,
        key=lambda t: (t.number not in graded, not meets_slo(t, slos), energy_j(t), t.number),
    )
    for trial in order:
        best.setdefault(_level_of(trial, default), trial)
    return best


def _level(
    found: ConfirmedFront, level: str | None, trial: TrialRow, default: str | None
) -> LevelEnergy:
    confirmation = found.confirmations.get(trial.number)
    quality = None if confirmation is None else confirmation.quality
    right = None if quality is None else quality.ours.share
    answer_j = metric(trial, _PER_REQUEST)
    return LevelEnergy(
        level=level,
        trial=trial.number,
        is_baseline=level == default,
        tokens=ratio(answer_j, metric(trial, _PER_TOKEN)),
        energy_per_answer_j=answer_j,
        unchanged_j=metric(_unchanged(found, level, default), _PER_REQUEST),
        meets_slo=meets_slo(trial, found.slos),
        right=right,
        energy_per_correct_answer_j=ratio(answer_j, right),
    )


def _unchanged(found: ConfirmedFront, level: str | None, default: str | None) -> TrialRow | None:
    """Return the trial at a level whose other knobs are as the baseline has them."""
    baseline, written = baseline_of(found.trials), StoredSpec.of(found.study).written_out
    if level == default or baseline is None or written is None:
        return baseline if level == default else None
    alike = {**written.knobs(), THINKING: level}
    return next((t for t in measured(found.trials) if t.configuration.knobs() == alike), None)


def _level_of(trial: TrialRow, default: str | None) -> str | None:
    return default if trial.configuration.thinking is None else trial.configuration.thinking
