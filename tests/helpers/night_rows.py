"""Rows of a night as the store gives them: trials, and repeats every five minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from helpers.records import START, measured, repeat_row, trial_row
from tuner.configuration import Configuration
from tuner.records import Failure, FailureKind, Measurement, Timing
from tuner.store import Answers, RepeatKind, RepeatRow, TrialRow, TrialState

DRIFT = Failure(FailureKind.UNSTABLE, "drift")


def trial_with(
    number: int, metrics: Mapping[str, float] | None, *, failed: bool = False
) -> TrialRow:
    """Return a trial that measured these metrics, or has no measurement."""
    found = None if metrics is None else measured(metrics)
    row = trial_row(number, found, Configuration(flags={"max_num_seqs": number}))
    return replace(row, state=TrialState.FAILED, failure=DRIFT) if failed else row


def values(energy_j: float, tpot_ms: float) -> Measurement:
    return measured({"energy_per_output_token_j": energy_j, "p99_tpot_ms": tpot_ms})


def repeat(
    number: int, of: int, result: Measurement | Failure, answers: Answers | None = None
) -> RepeatRow:
    """Return repeat `number` of trial `of`, which began 5 x `number` minutes into the night."""
    began_at = START + timedelta(minutes=5 * number)
    return repeat_row(
        number,
        of,
        result,
        RepeatKind.BASELINE if of == 0 else RepeatKind.CONFIRMATION,
        started_at=began_at,
        ended_at=began_at + timedelta(minutes=4),
        timing=Timing(240.0, 150.0),
        answers=answers,
    )
