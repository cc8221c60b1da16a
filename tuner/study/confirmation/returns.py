"""Knob returns of a study: what is tried before a configuration is confirmed.

Knobs of the configuration that would be recommended go back to the baseline's value, as an ordinary
trial on the search's stretch of traffic: first all but the one that is expected to matter most,
then half of those, and at last one at a time. What is no worse takes its place; where one window
cannot tell, both are measured again. Other workers meanwhile try it with single knobs a step
further. Once something holds, and what would save more
may not, the value between theirs is tried. The next step depends only on what is stored and on what
the search's model says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tuner.analysis.knobs.returned import by_configuration, key_of, returnable, returned
from tuner.analysis.outcomes import baseline_of
from tuner.analysis.outlook import Outlook
from tuner.analysis.verdicts import Confirmation
from tuner.measurement.statistics.unseen_traffic import LEAST_WINDOWS, MOST_MISSES
from tuner.store import RepeatRow, TrialRow
from tuner.study.confirmation.members import AIM_FROM, Goal, members, returns_of

_KEPT_OF_RESERVE = 0.6
_OF_A_VERDICT = 2 * LEAST_WINDOWS  # repeats, the default's beside them
Names = tuple[str, ...]
# The groups of a trial's knobs that can go back, the one that is expected to change least first.
Order = Callable[[int, Sequence[Names]], Sequence[Names]]


@dataclass(frozen=True, slots=True)
class KnobReturn:
    """A trial and the knobs of it that go back to the baseline's value next.

    What was measured before is measured again; without knobs it is the trial itself.
    """

    trial: int
    names: Names


def next_between(
    goal: Goal, trials: Sequence[TrialRow], repeats: Sequence[RepeatRow], left: int | None = None
) -> tuple[int, int] | None:
    """Return what holds, and what would save more but may not: between them the best may lie.

    None if nothing holds yet, or nothing would save more that the repeats `left` can show.
    """
    known = goal.verdicts(trials, repeats)
    front = members(goal, trials, repeats, known, left)
    holds = _holding(trials, known)
    if not holds or not front or front[0].baseline or front[0].number in holds:
        return None
    if Outlook(goal.slos, trials, repeats).miss_chance(front[0].number) <= MOST_MISSES:
        return None  # it will hold itself
    return min(holds, key=lambda number: holds[number]), front[0].number


def kept_s(
    goal: Goal,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    reserve_s: float,
    each_s: float | None,
) -> float:
    """Return the time that knob returns leave to the repeats, s: a share of what is reserved.

    Once something holds it is at most what a verdict takes at `each_s` a repeat: what would save
    more sets no idle knob either.
    """
    share_s = _KEPT_OF_RESERVE * reserve_s
    verdict_s = math.inf if each_s is None else _OF_A_VERDICT * each_s
    if share_s <= verdict_s or not _holding(trials, goal.verdicts(trials, repeats)):
        return share_s
    return verdict_s


def unconfirmed_leader(
    goal: Goal, trials: Sequence[TrialRow], repeats: Sequence[RepeatRow], left: int | None = None
) -> TrialRow | None:
    """Return what is confirmed next; None if that is the default, or is being confirmed.

    `left` is how many repeats there is room for: the last ones go to what they can still show.
    """
    front = members(goal, trials, repeats, goal.verdicts(trials, repeats), left)
    is_begun = {r.trial for r in repeats if r.traffic is not None and r.traffic < AIM_FROM}
    if not front or front[0].baseline or front[0].number in is_begun:
        return None
    return front[0]


def begun_leader(
    goal: Goal, trials: Sequence[TrialRow], repeats: Sequence[RepeatRow], left: int | None = None
) -> TrialRow | None:
    """Return what would be recommended by now, if the repeats `left` can confirm another instead.

    It may have been measured beside what was to be confirmed, and with knobs that never went back.
    """
    if left is not None and left < _OF_A_VERDICT:
        return None
    holds = _holding(trials, goal.verdicts(trials, repeats))
    number = min(holds, key=lambda number: holds[number], default=None)
    return next((t for t in trials if t.number == number), None)


def next_return(leader: TrialRow, trials: Sequence[TrialRow], order: Order) -> KnobReturn | None:
    """Return what to try next of a leader, or None if every knob of it was tried.

    Groups of knobs halve until one is no worse.
    """
    knobs = _Knobs(leader, trials, order)
    for names in knobs.groups:
        if knobs.is_new(names) and order(leader.number, [names]):
            return KnobReturn(leader.number, names)
    step = next((names for names in knobs.singles if knobs.is_new(names)), None)
    return None if step is None else KnobReturn(leader.number, step)


def next_again(
    goal: Goal, leader: TrialRow, trials: Sequence[TrialRow], repeats: Sequence[RepeatRow]
) -> KnobReturn | None:
    """Return what of a leader's returns to measure again, or None if all of them are decided."""
    if baseline_of(trials) is None:
        return None
    returns = returns_of(goal, trials, Outlook(goal.slos, trials, repeats))
    names = returns.measured_again(leader)
    return None if names is None else KnobReturn(leader.number, names)


def return_of_most(leader: TrialRow, trials: Sequence[TrialRow], order: Order) -> KnobReturn | None:
    """Return all knobs of a leader but the one that matters most; None if that was tried."""
    knobs = _Knobs(leader, trials, order)
    but_one = knobs.names[:-1]
    is_open = but_one and knobs.is_new(but_one) and order(leader.number, [but_one])
    return KnobReturn(leader.number, but_one) if is_open else None


class _Knobs:
    """The knobs of a leader that can go back, the one that is expected to change least first."""

    def __init__(self, leader: TrialRow, trials: Sequence[TrialRow], order: Order) -> None:
        self._configuration = leader.configuration
        baseline = baseline_of(trials)
        self._baseline = None if baseline is None else baseline.configuration
        self._tried = by_configuration(trials)
        knobs = [] if self._baseline is None else returnable(self._configuration, self._baseline)
        self.singles = list(order(leader.number, [(name,) for name in knobs])) if knobs else []
        self.names = tuple(name for (name,) in self.singles)

    @property
    def groups(self) -> Iterator[Names]:
        """All knobs but the last, and then each time half of them, while they are several."""
        size = len(self.names) - 1
        while size > 1:
            yield self.names[:size]
            size = (size + 1) // 2

    def is_new(self, names: Names) -> bool:
        """Whether the leader without these knobs was not tried."""
        configuration = self._configuration
        for name in names:
            assert self._baseline is not None
            configuration = returned(configuration, name, self._baseline)
        return key_of(configuration) not in self._tried


def _holding(trials: Sequence[TrialRow], known: Mapping[int, Confirmation]) -> dict[int, float]:
    """Return the energy, against the default's, of what is confirmed to meet the SLOs, by trial."""
    baseline = baseline_of(trials)
    return {
        number: found.energy.difference
        for number, found in known.items()
        if found.is_met
        and found.energy is not None
        and (baseline is None or number != baseline.number)
    }
