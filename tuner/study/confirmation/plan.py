"""Confirmation plan: which member of the Pareto front to repeat next, and the time reserved for it.

The plan depends only on what is stored, so a killed confirmation resumes where it stopped.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tuner.analysis.outcomes import baseline_of, front_of, measured, point_of
from tuner.analysis.verdicts import (
    LEAST_REPEATS,
    Confirmation,
    SloVerdict,
    as_confirmed,
    confirmations,
)
from tuner.pareto import spread_order
from tuner.records import FailureKind, Timing
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store import RepeatKind, RepeatRow, TrialRow

# Members repeated per round; the default is measured before and after each round.
ROUND = 3
# Repeats of the default during the search, because the machine may drift.
SPREAD_BASELINES = 2
_LEAST_TRIALS_TO_SPREAD = 12
# A would-be recommendation in doubt may be repeated this many times as often as the others.
LEADER_REPEATS = 6
# It takes this many turns before another member gets one: the recommendation matters most.
_LEADER_TURNS = 4
_SHARE_OF_HOURS = 0.4
_SHARE_OF_TRIALS = 0.25
_LEAST_MEASUREMENTS = 6
_MEMBERS = (2, 8)  # repeats that the reserved time covers
_REPEATS_PLANNED = 2.5
_LEADER_REPEATS_PLANNED = 15.0  # more, for what would be recommended if it is near a bound


@dataclass(frozen=True, slots=True)
class Step:
    """A trial whose configuration is measured again next, and why."""

    trial: TrialRow
    kind: RepeatKind


@dataclass(frozen=True, slots=True)
class Goal:
    """The SLOs and objectives that define the front, and the maximum repeats per member."""

    slos: tuple[Slo, ...]
    objectives: tuple[Objective, ...]
    most_repeats: int


def next_step(
    goal: Goal,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    *,
    since_baseline: int | None,
    left_out: frozenset[int] = frozenset(),
) -> Step | None:
    """Return what to measure next, or None when every member is decided.

    The order of members covers the front early and starts with the least first objective. They are
    measured `ROUND` at a time; those in `left_out` are skipped. `since_baseline` counts the members
    measured since the default was last measured in this run, None if it has not been.
    """
    known = confirmations(trials, repeats, goal.slos)
    baseline = _measured_baseline(trials)
    dropped = {number for number, found in known.items() if found.is_dropped} | left_out
    standing = [as_confirmed(t, known) for t in trials if t.number not in dropped]
    on_front = front_of(standing, goal.slos, goal.objectives)
    counts = {number: found.repeats for number, found in known.items()}
    leader = _doubtful_leader(goal, on_front, known)

    def is_decided(number: int) -> bool:
        return known[number].is_decided(goal.most_repeats)

    undecided = _in_order(
        on_front,
        goal.objectives,
        is_open=lambda t: (
            not (t.baseline or (baseline and t.configuration == baseline.configuration))
            and (t.number == leader or t.number not in known or not is_decided(t.number))
        ),
        is_begun=lambda t: counts.get(t.number, 0) > 0,
    )
    of_round = sorted(undecided, key=lambda t: t.number != leader)[:ROUND]
    if baseline is not None and baseline.number not in left_out:
        is_alone = any(t.baseline for t in on_front) and not of_round
        lacks = is_alone and counts.get(baseline.number, 0) < LEAST_REPEATS
        if lacks or _baseline_is_due(of_round, since_baseline):
            return Step(baseline, RepeatKind.BASELINE)
    if not of_round:
        return None
    return Step(_whose_turn(of_round, leader, repeats), RepeatKind.CONFIRMATION)


def _whose_turn(
    of_round: Sequence[TrialRow], leader: int | None, repeats: Sequence[RepeatRow]
) -> TrialRow:
    """Return the leader in doubt, but not too often in a row, else the longest-waiting member."""
    ordered = sorted(repeats, key=lambda row: row.number)
    turns = [row.trial for row in ordered if row.kind is RepeatKind.CONFIRMATION]
    first = of_round[0]
    if first.number == leader and turns[-_LEADER_TURNS:] != [leader] * _LEADER_TURNS:
        return first
    latest = {row.trial: row.number for row in ordered}
    others = [t for t in of_round if t.number != leader] or [first]
    return min(others, key=lambda t: latest.get(t.number, -1))


def _doubtful_leader(
    goal: Goal, on_front: Sequence[TrialRow], known: Mapping[int, Confirmation]
) -> int | None:
    """Return the number of the member that would be recommended if it surely met the SLOs.

    It is repeated until that is decided; otherwise a worse one would be recommended.
    """
    for trial in on_front:
        found = known.get(trial.number)
        if trial.baseline:
            continue
        if found is None:
            return trial.number
        if found.repeats >= LEAST_REPEATS and found.slo is SloVerdict.MET:
            return None
        if found.repeats < LEADER_REPEATS * goal.most_repeats:
            return trial.number
    return None


def _in_order(
    on_front: Sequence[TrialRow],
    objectives: Sequence[Objective],
    *,
    is_open: Callable[[TrialRow], bool],
    is_begun: Callable[[TrialRow], bool],
) -> list[TrialRow]:
    """Return the undecided members: started ones first, then the rest, spread over the front."""
    points = [point_of(trial, objectives) or () for trial in on_front]
    settled = {i for i, t in enumerate(on_front) if not is_open(t)}
    begun = [i for i, t in enumerate(on_front) if is_begun(t) and i not in settled]
    rest = spread_order(points, [*settled, *begun])
    return [on_front[i] for i in (*begun, *rest)]


def _baseline_is_due(of_round: Sequence[TrialRow], since: int | None) -> bool:
    if not of_round:
        return since is not None and since > 0  # the last members stand between two baselines
    return since is None or since >= max(len(of_round), 2)


def _measured_baseline(trials: Sequence[TrialRow]) -> TrialRow | None:
    baseline = baseline_of(trials)
    return baseline if baseline is not None and measured([baseline]) else None


def spread_is_due(share: float, budget_trials: int | None, repeats: Sequence[RepeatRow]) -> bool:
    """Say whether the default is due again when this share of the budget is spent.

    Of a budget in hours the search has only a part.
    """
    if budget_trials is None:
        share /= 1.0 - _SHARE_OF_HOURS
    elif budget_trials < _LEAST_TRIALS_TO_SPREAD:
        return False
    wanted = min(SPREAD_BASELINES, int(share * (SPREAD_BASELINES + 1)))
    return len(repeats) < wanted


def clean_s(tooks: Sequence[Timing]) -> float | None:
    """Return how long a measurement on a clean launch takes, s, from this study's own trials.

    None before there is a trial.
    """
    if not tooks:
        return None
    launches_s = [t.launch_s for t in tooks if t.launch_s]
    rest_s = [t.elapsed_s - (t.launch_s or 0.0) for t in tooks]
    return statistics.median(rest_s) + (statistics.median(launches_s) if launches_s else 0.0)


def reserve_s(budget_s: float, front_size: int, each_s: float | None) -> float:
    """Return the time that the search leaves to the confirmation, s."""
    if each_s is None or not math.isfinite(budget_s):
        return 0.0
    members = min(max(front_size, _MEMBERS[0]), _MEMBERS[1])
    repeats = members * _REPEATS_PLANNED + _LEADER_REPEATS_PLANNED
    evaluations = repeats * (1.0 + 1.0 / ROUND) + 1.0
    return min(evaluations * each_s, _SHARE_OF_HOURS * budget_s)


def may_go_on(
    budget_s: float,
    budget_trials: int | None,
    spent_s: float,
    repeats: Sequence[RepeatRow],
    each_s: float | None,
) -> bool:
    """Say whether the budget has room for one more repeat.

    A budget in hours lasts to its end, and always gives the confirmation its reserved share, so a
    study that was cut short can be confirmed later. A budget in trials allows a quarter of them as
    extra repeats, plus those of the default.
    """
    if math.isfinite(budget_s):
        own_s = sum(r.timing.elapsed_s for r in repeats if r.timing is not None)
        next_s = each_s or 0.0
        return spent_s + next_s <= budget_s or own_s + next_s <= _SHARE_OF_HOURS * budget_s
    most = max(_LEAST_MEASUREMENTS, math.ceil((budget_trials or 0) * _SHARE_OF_TRIALS))
    return sum(r.kind is RepeatKind.CONFIRMATION and not _is_machines(r) for r in repeats) < most


def _is_machines(repeat: RepeatRow) -> bool:
    """Say whether a repeat failed because of the machine, not the configuration."""
    return repeat.failure is not None and repeat.failure.kind is FailureKind.INFRASTRUCTURE
