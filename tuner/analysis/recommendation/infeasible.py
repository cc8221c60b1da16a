"""Infeasible study: the message when no trial met the SLO, with the nearest trial."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.analysis.outcomes import ended_early, feasible, kind_of_study, measured
from tuner.metrics import METRICS, Direction
from tuner.slo import Slo
from tuner.store.rows import StudyIdentity, TrialRow, TrialState

_TIMES = 2.0  # a percentage beyond this is told as a multiple


def nothing_met(study: StudyIdentity, trials: Sequence[TrialRow], slos: Sequence[Slo]) -> str:
    """Return the sentence for a study without a feasible trial."""
    known, ended = measured(trials), ended_early(trials)
    counts = _counts(trials, known, ended)
    wanted = ", ".join(str(slo) for slo in slos)
    if all(t.state is TrialState.RUNNING for t in trials):
        return f"no trial of study '{study.name}' has ended yet; see `tuner status {study.name}`"
    if not known and not ended:
        return (
            f"nothing in study '{study.name}' was measured ({counts}); see why with "
            f"`tuner show {study.name}`"
        )
    if feasible(trials, slos):
        return (
            f"no trial of study '{study.name}' that met {wanted or 'its SLO'} has a measured "
            f"{kind_of_study(study).energy} ({counts})"
        )
    start = f"nothing in study '{study.name}' met {wanted} ({counts})"
    of_whole = " of the whole windows" if known and ended else ""
    return f"{start}; {_nearest(known or ended, slos, of_whole)}"


def _counts(
    trials: Sequence[TrialRow], known: Sequence[TrialRow], ended: Sequence[TrialRow]
) -> str:
    """Return how the trials went, such as `5 trials measured, 2 ended early, 1 failed`."""
    failed = sum(t.state is TrialState.FAILED for t in trials)
    counts = [f"{len(known)} {'trial' if len(known) == 1 else 'trials'} measured"]
    if ended:
        counts.append(f"{len(ended)} ended early")
    return ", ".join([*counts, f"{failed} failed"])


def _nearest(trials: Sequence[TrialRow], slos: Sequence[Slo], of_whole: str) -> str:
    """Return the trial whose worst constraint violation is the least, in words."""
    worst = [w for w in (_worst(t, slos) for t in trials) if w is not None]
    if not worst:
        lacking = ", ".join(sorted({slo.metric for slo in slos}))
        return f"no trial measured all of: {lacking}"
    violation, number, slo, value = min(worst, key=lambda w: (w[0], w[1]))
    unit = METRICS[slo.metric].unit
    return (
        f"nearest{of_whole}: trial {number} with {slo.metric} {_shown(value)} {unit}, "
        f"{_past(violation, slo)} {_shown(slo.bound)} {unit}"
    )


def _worst(trial: TrialRow, slos: Sequence[Slo]) -> tuple[float, int, Slo, float] | None:
    """Return the greatest violation of a trial, or None if a metric was not measured."""
    if trial.measurement is None:
        return None
    metrics = trial.measurement.metrics
    if any(slo.metric not in metrics for slo in slos):
        return None
    violations = [
        (slo.violation(metrics[slo.metric]), trial.number, slo, metrics[slo.metric]) for slo in slos
    ]
    return max(violations, key=lambda v: v[0])


def _past(violation: float, slo: Slo) -> str:
    share = math.exp(violation) if slo.direction is Direction.MIN else math.exp(-violation)
    if slo.direction is Direction.MIN and share >= _TIMES:
        return f"{share:.1f} times"
    percent = 100.0 * abs(share - 1.0)
    digits = 0 if percent >= 10.0 else 1
    return f"{percent:.{digits}f} % {'over' if slo.direction is Direction.MIN else 'under'}"


def _shown(value: float) -> str:
    """Return a value to four digits, and never with a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.4g}"
