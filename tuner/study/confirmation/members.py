"""Members of a confirmation: what stands, with what is expected of it on unseen traffic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.analysis.knob_returns import simplified
from tuner.analysis.margins import energy_shift, margins
from tuner.analysis.outcomes import baseline_of, energy_j, feasible, front_of, measured
from tuner.analysis.verdicts import Confirmation
from tuner.configuration import Configuration
from tuner.measurement.statistics.unseen_traffic import SloVerdict
from tuner.metrics import Direction, kind_of
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store import RepeatRow, TrialRow

# Stretches from this number on tell the search how far within its SLOs to aim.
AIM_FROM = 1000
_AS_LITTLE = 1.02  # energies of two windows this near to each other may be the same
# Where nothing is within the margin, the first part of it that something is within.
_SHARES_OF_MARGIN = (1.0, 0.75, 0.5, 0.25, 0.0)


@dataclass(frozen=True, slots=True)
class Goal:
    """The SLOs and objectives that define the front, and the maximum repeats per member.

    `quality_drop` is how much less of the study's questions a member may answer right.
    """

    slos: tuple[Slo, ...]
    objectives: tuple[Objective, ...]
    most_repeats: int
    quality_drop: float = 0.0


def members(
    goal: Goal,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    known: Mapping[int, Confirmation],
) -> list[TrialRow]:
    """Return the front that is expected on unseen traffic, what would be recommended first.

    What was repeated stands with its repeats, unless they reject it. The rest stands with the
    search's window and what the repeated ones lost against theirs; it has to be within the SLOs by
    the margin, or as much of it as any is.
    """
    by_number = {t.number: t for t in trials}
    learned = margins(goal.slos, trials, repeats)
    ratios = {
        n: 1.0 + found.energy.difference
        for n, found in known.items()
        if found.energy is not None and found.energy.difference > -1.0
    }
    default = baseline_of(trials)
    default_j = energy_j(default)
    shift = energy_shift(trials, ratios)
    base = Configuration() if default is None else default.configuration
    within = {key: margin.needed for key, margin in learned.items()}
    trials = _in_their_place(trials, simplified(trials, goal.slos, base, within))
    standing: dict[int, TrialRow] = {}
    for trial in measured(trials):
        found = known.get(trial.number)
        if found is None:
            continue
        if not (found.is_dropped or found.is_hopeless):
            expected_j, ratio = energy_j(trial), ratios.get(trial.number)
            if default_j is not None and ratio is not None and not trial.baseline:
                expected_j = default_j * ratio
            elif expected_j is not None and not trial.baseline:
                expected_j *= math.exp(shift)
            standing[trial.number] = _as_repeated(trial, found, expected_j, goal.slos)
    front: list[TrialRow] = []
    rows: list[TrialRow] = []
    for share in _SHARES_OF_MARGIN:
        needed = {key: share * margin.needed for key, margin in learned.items()}
        rest = [
            _elsewhere(trial, goal.slos, needed, shift)
            for trial in measured(trials)
            if trial.number not in known
        ]
        rows = [*standing.values(), *rest]
        front = front_of(rows, goal.slos, goal.objectives)
        if not all(t.baseline for t in front):
            break
    first = [] if not front or front[0].baseline else [_leader(rows, goal.slos, repeats, known)]
    others = [t for t in front if t.number not in {leader.number for leader in first}]
    return [by_number[t.number] for t in (*first, *others)]


def _leader(
    rows: Sequence[TrialRow],
    slos: Sequence[Slo],
    repeats: Sequence[RepeatRow],
    known: Mapping[int, Confirmation],
) -> TrialRow:
    """Return which of the rows of least energy, as far as one window can tell, is to be confirmed.

    One whose confirmation has begun stays until that is decided: a night that goes from one to the
    next decides none. Else it is the one with the fewest knobs, which others equal.
    """
    begun = [r.trial for r in repeats if r.traffic is not None and r.traffic < AIM_FROM]
    able = [t for t in feasible(rows, slos) if not t.baseline and energy_j(t)]
    held_j = min(
        (
            energy_j(t) or math.inf
            for t in able
            if t.number in begun and known[t.number].slo is SloVerdict.MET
        ),
        default=math.inf,
    )
    undecided = [
        t
        for t in able
        if t.number in begun
        and known[t.number].slo is SloVerdict.UNCERTAIN
        and (energy_j(t) or math.inf) < held_j
    ]
    if undecided:
        return max(undecided, key=lambda t: begun.count(t.number))
    least_j = min(energy_j(t) or math.inf for t in able)

    def rank(trial: TrialRow) -> tuple[int, int, float]:
        ours_j = energy_j(trial) or math.inf
        return -begun.count(trial.number), len(trial.configuration.knobs()), ours_j

    return min((t for t in able if (energy_j(t) or math.inf) <= least_j * _AS_LITTLE), key=rank)


def _in_their_place(trials: Sequence[TrialRow], simpler: Mapping[int, TrialRow]) -> list[TrialRow]:
    """Leave out what has a simpler equal, which stands with the window of the fullest of them.

    Both windows are as good; of two the better one by chance would lead.
    """
    fullest: dict[int, TrialRow] = {}
    for trial in sorted(trials, key=lambda t: len(t.configuration.knobs())):
        if trial.number in simpler and not trial.baseline:
            fullest[simpler[trial.number].number] = trial
    return [
        replace(t, measurement=fullest[t.number].measurement)
        if t.number in fullest and not t.baseline
        else t
        for t in trials
        if t.number not in simpler or t.baseline
    ]


def _elsewhere(
    trial: TrialRow, slos: Sequence[Slo], needed: Mapping[str, float], shift: float
) -> TrialRow:
    """Return the trial with what its window would have to show on unseen traffic."""
    assert trial.measurement is not None
    metrics = dict(trial.measurement.metrics)
    for slo in slos:
        if slo.metric in metrics:
            sign = 1.0 if slo.direction is Direction.MIN else -1.0
            metrics[slo.metric] *= math.exp(sign * needed[str(slo)])
    name = kind_of(metrics).energy
    if not trial.baseline and name in metrics:
        metrics[name] *= math.exp(shift)
    return replace(trial, measurement=replace(trial.measurement, metrics=metrics))


def _as_repeated(
    trial: TrialRow, found: Confirmation, expected_j: float | None, slos: Sequence[Slo]
) -> TrialRow:
    """Return the trial with the means of its repeats, and its energy beside the default's.

    Means of energy over different stretches could not be compared.
    Where it is uncertain whether an SLO is met, it counts as met: one window decides nothing.
    """
    assert trial.measurement is not None
    metrics = {name: estimate.mean for name, estimate in found.estimates.items()}
    for slo in slos:
        if slo.metric in metrics and slo.violation(metrics[slo.metric]) > 0.0:
            metrics[slo.metric] = slo.bound
    name = kind_of(metrics).energy
    if expected_j is not None and name in metrics:
        metrics[name] = expected_j
    return replace(
        trial,
        measurement=replace(trial.measurement, metrics=metrics or trial.measurement.metrics),
    )
