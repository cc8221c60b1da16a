"""Knob returns of a study: what is tried before a configuration is confirmed.

Each knob of the configuration that would be recommended goes back to the baseline's value, one at a
time, as an ordinary trial on the search's stretch of traffic. What is no worse takes its place. The
next step depends only on what is stored and on the order that the search's model gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.analysis.knob_returns import by_configuration, key_of, returnable, returned
from tuner.analysis.outcomes import baseline_of
from tuner.analysis.verdicts import confirmations
from tuner.store import RepeatRow, TrialRow
from tuner.study.confirmation.members import AIM_FROM, Goal, members

# The knobs of a trial that can go back, the one that is expected to change least first.
Order = Callable[[int, Sequence[str]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class KnobReturn:
    """A trial and the knob of it that goes back to the baseline's value next."""

    trial: int
    name: str


def next_return(
    goal: Goal, trials: Sequence[TrialRow], repeats: Sequence[RepeatRow], order: Order
) -> KnobReturn | None:
    """Return what to try next, or None if every knob of the leader was tried or is confirmed."""
    known = confirmations(trials, repeats, goal.slos, goal.quality_drop)
    baseline = baseline_of(trials)
    front = members(goal, trials, repeats, known)
    leader = front[0] if front else None
    if baseline is None or leader is None or leader.baseline:
        return None
    is_begun = {r.trial for r in repeats if r.traffic is not None and r.traffic < AIM_FROM}
    if leader.number in is_begun:
        return None
    tried = by_configuration(trials)
    left = [
        name
        for name in returnable(leader.configuration, baseline.configuration)
        if key_of(returned(leader.configuration, name, baseline.configuration)) not in tried
    ]
    ordered = order(leader.number, left) if left else ()
    return KnobReturn(leader.number, ordered[0]) if ordered else None
