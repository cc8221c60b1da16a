"""Estimates: what the search is told of a trial that lost a race.

On the same requests the ratio of two trials is known better than the values of either. So the
search learns the values of the trial that it was lost to, times the ratios. They never leave
Optuna.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from tuner.measurement.racing.sentence import lost_in
from tuner.slo import Slo
from tuner.spec.objective import Objective


@dataclass(frozen=True, slots=True)
class Estimates:
    """The costs of the objectives, in order, and the violation of each SLO by its text; logs."""

    costs: tuple[float, ...]
    violations: dict[str, float]


def estimates(
    reason: str,
    told: Sequence[FrozenTrial],
    objectives: Sequence[Objective],
    slos: Sequence[Slo],
) -> Estimates | None:
    """Return what is expected of a trial that failed for this `reason`, if it is a lost race.

    None for another reason, or if the trial that it was lost to was not told. All objectives are
    compared; an SLO that is not is taken to be as that trial's.
    """
    lost = lost_in(reason)
    if lost is None:
        return None
    rival = next((t for t in told if t.number == lost.trial), None)
    ratios = [lost.log_ratios.get(objective.metric) for objective in objectives]
    known = [ratio for ratio in ratios if ratio is not None]
    if rival is None or len(known) < len(ratios):
        return None
    violations = {
        str(slo): rival.constraints[str(slo)] + lost.log_ratios.get(slo.metric, 0.0) for slo in slos
    }
    costs = tuple(value + ratio for value, ratio in zip(rival.values, known, strict=True))
    return Estimates(costs, violations)
