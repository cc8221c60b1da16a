"""Optima at an edge: a knob at the end of what was tried, with less energy towards it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tuner.analysis.outcomes import energy_j, feasible
from tuner.configuration import Value
from tuner.slo import Slo
from tuner.store.rows import TrialRow

_CLEARLY = 0.01  # a logarithm: less is the noise of a window
_NEAR = 1.25  # as many times a knob's value: what differs by more may be what costs the energy


def edges(
    best: TrialRow, trials: Sequence[TrialRow], slos: Sequence[Slo], baseline: TrialRow | None
) -> list[str]:
    """Return a sentence for each knob of `best` that a wider range may improve.

    Its value is the lowest or highest that was tried, the default has another one, and the best
    that meets the SLOs with the next value uses clearly more energy. Only trials of the same
    choices and of nearly the same other numbers are compared: another precision or clock changes
    more than a limit does.
    """
    known = [t for t in feasible(trials, slos) if energy_j(t)]
    ours_j = energy_j(next((t for t in known if t.number == best.number), best))
    theirs = {} if baseline is None else baseline.configuration.knobs()
    found = []
    for name, value in best.configuration.knobs().items():
        tried = _numbers(t.configuration.knobs().get(name) for t in trials)
        number = _number(value)
        if number is None or len(tried) < 2 or not ours_j or theirs.get(name) == value:
            continue
        if number not in (tried[0], tried[-1]):
            continue
        is_lowest = number == tried[0]
        next_j = [
            theirs_j
            for t in known
            if _number(t.configuration.knobs().get(name)) == (tried[1] if is_lowest else tried[-2])
            and _is_alike(t, best, name)
            and (theirs_j := energy_j(t))
        ]
        if next_j and math.log(min(next_j) / ours_j) > _CLEARLY:
            found.append(
                f"{name}={value} is the {'lowest' if is_lowest else 'highest'} value that was "
                "tried, and energy falls towards it: a wider range may save more"
            )
    return found


def _is_alike(trial: TrialRow, best: TrialRow, but: str) -> bool:
    """Say whether two trials have the same knobs, numbers nearly so, apart from one."""
    theirs, ours = trial.configuration.knobs(), best.configuration.knobs()
    return all(_is_near(theirs.get(n), ours.get(n)) for n in {*theirs, *ours} - {but})


def _is_near(one: Value | None, other: Value | None) -> bool:
    a, b = _number(one), _number(other)
    if a is None or b is None or min(a, b) <= 0.0:
        return one == other
    return max(a, b) <= _NEAR * min(a, b)


def _numbers(values: Iterable[Value | None]) -> list[float]:
    return sorted({number for value in values if (number := _number(value)) is not None})


def _number(value: Value | None) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value is not None else None
