"""Confirmation plan: which member of the Pareto front to repeat next, and the time reserved for it.

Repeats come in rounds. All of a round run on one stretch of traffic that the search did not see, so
that each is paired with the default's. Of even rounds the default comes first, of odd ones last: a
drift of the machine moves the pairs to and fro.

The plan depends only on what is stored, so a killed confirmation resumes where it stopped.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tuner.analysis.outcomes import baseline_of, measured, point_of
from tuner.analysis.outlook import Outlook
from tuner.analysis.verdicts import LEAST_REPEATS, Confirmation
from tuner.measurement.statistics.unseen_traffic import LEAST_WINDOWS, LEVEL, SloVerdict
from tuner.pareto import spread_order
from tuner.records import FailureKind, Timing
from tuner.store import RepeatKind, RepeatRow, TrialRow, TrialState
from tuner.study.confirmation.members import AIM_FROM, Goal, members

# Members in a round, once the one that would be recommended is decided; before that it is alone:
# each further stretch tells of all.
ROUND = 3
# A would-be recommendation in doubt may be repeated this many times as often as the others.
LEADER_REPEATS = 6
# So many of them, once this share of the search is over.
AIMS: tuple[tuple[float, int], ...] = ((0.35, 3), (0.7, 5))
AIMS_OF_HOURS = (*AIMS, (0.95, 4))  # a budget in trials has few repeats
AIM_REPEATS = sum(count for _, count in AIMS_OF_HOURS)
_LEAST_TRIALS_TO_AIM = 24
AIM_SHARE_OF_HOURS = 0.2  # at most: in a short study the rest of the half confirms
_DOUBTFUL = 2.0 * (1.0 - LEVEL)  # a chance to miss an SLO
SHARE_OF_HOURS = 0.5
_SHARE_OF_TRIALS = 0.4
_LEAST_MEASUREMENTS = 12
_MEMBERS = (2, 8)  # repeats that the reserved time covers
_REPEATS_PLANNED = 2.5
_LEADER_REPEATS_PLANNED = 15.0  # more, for what would be recommended if it is near a bound
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Step:
    """A trial whose configuration is measured again next, why, and on which unseen stretch."""

    trial: TrialRow
    kind: RepeatKind
    traffic: int


def next_step(
    goal: Goal,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    card: str | None = None,
    *,
    left_out: frozenset[int] = frozenset(),
    is_one_of_several: bool = False,
    left: int | None = None,
) -> Step | None:
    """Return what to measure next on a card, or None when every member is decided.

    All of a round is measured on one card, whose own power then cancels out of its pairs. What
    would be recommended is confirmed on two cards at least, if this is one of several. Members in
    `left_out` are skipped. `left` is how many repeats there is room for, None for many.
    """
    cards = {
        r.traffic: r.owner.card for r in repeats if r.traffic is not None and r.traffic < AIM_FROM
    }
    new = max(cards, default=-1) + 1
    latest = max((number for number, owner in cards.items() if owner == card), default=None)
    ended = [r for r in repeats if r.state is not TrialState.RUNNING]  # other workers' still run
    plan = _Plan(goal, trials, ended, left_out, card if is_one_of_several else None, left)
    own_rounds = [number for number, owner in cards.items() if owner == card]
    if (last := plan.last_pair(own_rounds)) is not None:
        return last
    if latest is None:
        return plan.step(new) or plan.step(new + 1)
    return plan.step(latest) or plan.step(new)


class _Plan:
    """The state of a confirmation: who stands, who leads, and what each round has."""

    def __init__(
        self,
        goal: Goal,
        trials: Sequence[TrialRow],
        repeats: Sequence[RepeatRow],
        left_out: frozenset[int],
        card: str | None = None,
        left: int | None = None,
    ) -> None:
        self._goal = goal
        self._card = card
        self._known = goal.verdicts(trials, repeats)
        self._outlook = Outlook(goal.slos, trials, repeats)
        self._repeats = repeats
        self._left_out = left_out
        self._left = left
        default = baseline_of(trials)
        is_measured = default is not None and bool(measured([default]))
        self._default = default if is_measured else None
        front = members(goal, trials, repeats, self._known, left)
        self._front = [t for t in front if t.number not in left_out]
        self._leader = self._doubtful_leader()

    def step(self, number: int) -> Step | None:
        """Return what round `number` still needs, or None."""
        done = self._done(number)
        waiting = self._waiting(number, done)
        in_round = (done & self._known.keys()) | {t.number for t in waiting[:1]}
        default = self._default
        if default is not None and default.number not in done | self._left_out:
            others = in_round - {default.number}
            wants_pair = any(self._wants_pair(n, number) for n in others)
            if (wants_pair or self._default_is_alone(waiting)) and (number % 2 == 0 or not waiting):
                return Step(default, RepeatKind.BASELINE, number)
        return Step(waiting[0], RepeatKind.CONFIRMATION, number) if waiting else None

    def last_pair(self, rounds: Sequence[int]) -> Step | None:
        """Return a window beside one of the default's that is there, if only that is left.

        What meets the SLOs is recommended once it is compared with the default, and there is no
        room to measure both. `rounds` are the card's own so far.
        """
        leader = next((t for t in self._front if t.number == self._leader), None)
        found = None if leader is None else self._known.get(leader.number)
        if leader is None or found is None or self._left is None or self._default is None:
            return None
        lacking = LEAST_REPEATS - found.pairs
        if found.slo is not SloVerdict.MET or not lacking <= self._left < 2 * lacking:
            return None
        for number in sorted(rounds, reverse=True):
            done = self._done(number)
            if leader.number not in done and self._default.number in done:
                return Step(leader, RepeatKind.CONFIRMATION, number)
            if leader.number in done and self._default.number not in done:
                return None  # the default follows there
        return None

    def _done(self, number: int) -> set[int]:
        """Return what round `number` has measured, or what failed there by its own fault."""
        return {
            r.trial
            for r in self._repeats
            if r.traffic == number and (r.measurement is not None or _is_own_fault(r))
        }

    def _waiting(self, number: int, done: set[int]) -> list[TrialRow]:
        """Return the members that this round has still to measure."""
        default = None if self._default is None else self._default.number
        size = ROUND if self._leader is None else 1
        room = size - len(done - {default})
        return [t for t in self._undecided() if t.number not in done][: max(room, 0)]

    def _undecided(self) -> list[TrialRow]:
        """Return the leader in doubt, started members, then the rest, spread over the front."""
        points = [point_of(trial, self._goal.objectives) or () for trial in self._front]
        settled = {i for i, t in enumerate(self._front) if not self._is_open(t)}
        begun = [
            i for i, t in enumerate(self._front) if t.number in self._known and i not in settled
        ]
        rest = spread_order(points, [*settled, *begun])
        order = [self._front[i] for i in (*begun, *rest)]
        return sorted(order, key=lambda t: t.number != self._leader)

    def _is_open(self, trial: TrialRow) -> bool:
        if self._is_default(trial):
            return False
        found = self._known.get(trial.number)
        is_leader = trial.number == self._leader
        return is_leader or found is None or not found.is_decided(self._goal.most_repeats)

    def _doubtful_leader(self) -> int | None:
        """Return the member that would be recommended if it surely met the SLOs.

        It is repeated until that is decided; otherwise a worse one would be recommended.
        """
        for trial in self._front:
            if self._is_default(trial):
                return None  # nothing beats it
            found = self._known.get(trial.number)
            if found is None:
                return trial.number
            if found.slo is SloVerdict.MET and found.knows_energy:
                return trial.number if self._wants_this_card(trial.number) else None
            if found.repeats < LEADER_REPEATS * self._goal.most_repeats:
                return trial.number
        return None

    def _wants_this_card(self, member: int, but: int | None = None) -> bool:
        """Say whether one other card has confirmed a member, and this one only in round `but`."""
        cards = {
            r.owner.card
            for r in self._repeats
            if r.trial == member
            and r.traffic != but
            and r.kind is RepeatKind.CONFIRMATION
            and r.measurement is not None
        }
        return self._card is not None and len(cards) == 1 and self._card not in cards

    def _default_is_alone(self, waiting: Sequence[TrialRow]) -> bool:
        """Say whether only the default stands, and too little is known of it."""
        default = self._default
        if default is None or waiting or not any(self._is_default(t) for t in self._front):
            return False
        found = self._known.get(default.number)
        return found is None or found.repeats < LEAST_WINDOWS

    def _is_default(self, trial: TrialRow) -> bool:
        default = self._default
        return trial.baseline or (
            default is not None and trial.configuration == default.configuration
        )

    def _members(self) -> Iterator[Confirmation]:
        """Return the verdicts on all but the default."""
        default = None if self._default is None else self._default.number
        return (found for number, found in self._known.items() if number != default)

    def _wants_pair(self, number: int, stretch: int) -> bool:
        """Say whether a member's energy is to be compared with the default's on this stretch.

        Not while it may miss an SLO, and another is confirmed already or its energy is known well
        enough to choose: two more stretches tell more of that.
        """
        found = self._known.get(number)
        is_held = any(other.is_met for other in self._members())
        if is_held and self._outlook.miss_chance(number) > _DOUBTFUL:
            return False
        if found is None:
            return True
        if found.slo is SloVerdict.UNCERTAIN and found.pairs >= LEAST_WINDOWS:
            return False
        is_known = found.knows_energy or found.is_dropped
        return not is_known or self._wants_this_card(number, stretch)


def aim_step(
    goal: Goal,
    share: float,
    budget_trials: int | None,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
) -> Step | None:
    """Return what to measure on unseen traffic during the search, so that it aims right.

    `share` of the budget is spent. It is what would be recommended by now; see
    `tuner.analysis.outlook`.
    """
    if not is_aim_due(share, budget_trials, repeats):
        return None
    front = members(goal, trials, repeats, goal.verdicts(trials, repeats), is_aim=True)
    leader = next((t for t in front if not t.baseline), None)
    if leader is None:
        return None
    return Step(leader, RepeatKind.CONFIRMATION, AIM_FROM + len(_aims(repeats)))


def is_aim_due(share: float, budget_trials: int | None, repeats: Sequence[RepeatRow]) -> bool:
    """Say whether one more window on unseen traffic is due at this share of the budget."""
    due = sum(count for _, count in _aims_begun(share, budget_trials))
    return len(_aims(repeats)) < due


def aim_levels(share: float, budget_trials: int | None) -> int:
    """Return at how many points of the search windows on unseen traffic are due by now."""
    return len(_aims_begun(share, budget_trials))


def _aims_begun(share: float, budget_trials: int | None) -> list[tuple[float, int]]:
    """Return when how many such windows are due; of a budget in hours the search has a part."""
    due = AIMS
    if budget_trials is None:
        share, due = share / (1.0 - SHARE_OF_HOURS), AIMS_OF_HOURS
    elif budget_trials < _LEAST_TRIALS_TO_AIM:
        return []
    return [(at, count) for at, count in due if share >= at]


def _aims(repeats: Sequence[RepeatRow]) -> list[RepeatRow]:
    return [r for r in repeats if r.traffic is not None and r.traffic >= AIM_FROM]


def may_aim(budget_s: float, repeats: Sequence[RepeatRow], each_s: float | None) -> bool:
    """Say whether the hours have room for one more `aim_step`."""
    return _spent_s(_aims(repeats)) + (each_s or 0.0) <= AIM_SHARE_OF_HOURS * budget_s


def clean_s(tooks: Sequence[Timing]) -> float | None:
    """Return how long a measurement on a clean launch takes, s, from this study's own trials.

    None before there is a trial.
    """
    if not tooks:
        return None
    launches_s = [t.launch_s for t in tooks if t.launch_s]
    rest_s = [t.elapsed_s - (t.launch_s or 0.0) for t in tooks]
    return statistics.median(rest_s) + (statistics.median(launches_s) if launches_s else 0.0)


def reserve_s(
    budget_s: float, front_size: int, each_s: float | None, repeats: Sequence[RepeatRow] = ()
) -> float:
    """Return the time that the search still leaves to the confirmation, s.

    What `repeats` took is no longer left: they belong to it.
    """
    if each_s is None or not math.isfinite(budget_s):
        return 0.0
    count = min(max(front_size, _MEMBERS[0]), _MEMBERS[1])
    planned = count * _REPEATS_PLANNED + _LEADER_REPEATS_PLANNED
    evaluations = planned * (1.0 + 1.0 / ROUND) + 1.0
    all_s = min(evaluations * each_s, SHARE_OF_HOURS * budget_s)
    return max(0.0, all_s - _spent_s(repeats))


def _spent_s(repeats: Iterable[RepeatRow]) -> float:
    return sum(r.timing.elapsed_s for r in repeats if r.timing is not None)


def repeats_left(
    budget_s: float,
    budget_trials: int | None,
    spent_s: float,
    repeats: Sequence[RepeatRow],
    each_s: float | None,
    *,
    is_late: bool = False,
) -> int | None:
    """Return how many more repeats the budget has room for; None if there is, for nobody knows.

    A budget in hours lasts to its end. If it was spent when the run began (`is_late`), the
    confirmation gets its reserved share on top, so that a finished study can be confirmed. A budget
    in trials allows two fifths of them as extra repeats, plus those of the default.
    """
    if math.isfinite(budget_s):
        left_s = SHARE_OF_HOURS * budget_s - _spent_s(repeats) if is_late else budget_s - spent_s
        if each_s:
            return max(0, math.floor(left_s / each_s + _ROUNDING))
        return 0 if left_s < 0.0 else None
    counted = sum(r.kind is RepeatKind.CONFIRMATION and not _is_machines(r) for r in repeats)
    of_members = max(0, most_repeats(budget_trials or 0) - counted)
    return of_members + min(of_members, LEAST_REPEATS)


def most_repeats(budget_trials: int) -> int:
    """Return how many repeats of members come on top of a budget in trials, at most."""
    return max(_LEAST_MEASUREMENTS, math.ceil(budget_trials * _SHARE_OF_TRIALS))


def _is_machines(repeat: RepeatRow) -> bool:
    """Say whether a repeat failed because of the machine, not the configuration."""
    return repeat.failure is not None and repeat.failure.kind.is_machines


def _is_own_fault(repeat: RepeatRow) -> bool:
    """Say whether a repeat failed because of its configuration."""
    return repeat.failure is not None and repeat.failure.kind is FailureKind.CONFIGURATION
