"""Knob returns: which knobs of a configuration can go back to the baseline's value at no cost.

A trial with one knob less than another, on the same stretch of traffic, says what that knob
contributes. A knob goes back unless it is shown to save: what is within the noise is measured
again, on the same stretch, and the means of all windows count. What behaves the same needs no
further window: a limit that never bound changes no latency. The trial with all of the knobs is the
best of many windows, and so likely a lucky one. Several trials that behave as it does and lack some
of its knobs tell how lucky.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum, auto

import numpy as np

from tuner.analysis.knobs.returned import key_of, returnable, returned
from tuner.analysis.knobs.searched import Searched, searched, together
from tuner.analysis.outcomes import energy_j
from tuner.configuration import Configuration
from tuner.slo import Slo
from tuner.store.rows import TrialRow

_SAME_ENERGY = 0.005  # a logarithm
# Standard errors beyond the tolerance. So many are surely more; what is less far beyond goes back
# after the last window, and what is near once the fuller one was measured again: its luck is out.
_SURELY, _LIKELY, _NEAR = 3.0, 2.0, 1.0
_MOST_WINDOWS = 3  # of each of two configurations
_SAME_VIOLATION = 0.02  # of a percentile, from launch to launch
_SAME_IF_MEANS_ARE = 0.05  # where the mean latencies are the same: a p99 has more noise
_FLOATING = 1e-9


class _Cost(Enum):
    """What it costs that some knobs of a configuration go back."""

    NONE = auto()
    SOME = auto()
    IN_DOUBT = auto()  # more windows would tell


class Returns:
    """What the search's trials say of the knobs of each."""

    def __init__(
        self,
        trials: Sequence[TrialRow],
        slos: Sequence[Slo],
        baseline: Configuration,
        margins: Mapping[str, float],
    ) -> None:
        """`margins` says, by an SLO's text, how far within it a window has to be to hold elsewhere.

        Windows that count together may tell more: what goes back is asked until nothing changes.
        """
        self._slos = slos
        self._baseline = baseline
        self._margins = margins
        self._stand = searched(trials)
        while found := self._free():
            self._stand = _in_their_place(self._stand, found)

    @property
    def standing(self) -> list[TrialRow]:
        """The measured configurations that no simpler one replaces.

        Each is its first trial, with the means of all windows that count as its own.
        """
        return [one.trial for one in self._stand]

    def measured_again(self, trial: TrialRow) -> tuple[str, ...] | None:
        """Return which knobs of a trial go back in what a further window has to tell of, if any.

        Without knobs it is the trial itself: of the two that are compared the one with fewer
        windows, and of equals the one with all knobs, which is the likelier to have been lucky.
        """
        key, known = key_of(trial.configuration), self._by_knobs()
        for fuller in (one for one, _ in known if key_of(one.trial.configuration) == key):
            for simpler, lacks, cost in self._costs(fuller, known):
                if cost is _Cost.IN_DOUBT:
                    return tuple(sorted(lacks)) if simpler.windows < fuller.windows else ()
        return None

    def _free(self) -> dict[int, int]:
        """Return what costs nothing in place of what, by the numbers of trials."""
        known, found = self._by_knobs(), dict[int, int]()
        for fuller, _ in known:  # the fewest knobs first, so that a chain ends at once
            costs = self._costs(fuller, known)
            free = next((simpler for simpler, _, cost in costs if cost is _Cost.NONE), None)
            if free is not None:
                number = free.trial.number
                found[fuller.trial.number] = found.get(number, number)
        return found

    def _by_knobs(self) -> list[tuple[Searched, list[str]]]:
        """Return what stands with the knobs that it sets, the fewest first."""
        known = [(one, returnable(one.trial.configuration, self._baseline)) for one in self._stand]
        return sorted(known, key=lambda entry: len(entry[1]))

    def _costs(
        self, fuller: Searched, known: Sequence[tuple[Searched, Sequence[str]]]
    ) -> list[tuple[Searched, frozenset[str], _Cost]]:
        """Return what has fewer knobs, the fewest first, with those that it lacks and the cost."""
        names = returnable(fuller.trial.configuration, self._baseline)
        fewer = [
            (other, frozenset(names).difference(kept))
            for other, kept in known
            if len(kept) < len(names) and self._is_returned(other, kept, fuller, names)
        ]
        fuller_j = _less_luck(fuller, fewer)
        return [(other, lacks, self._cost(other, fuller, fuller_j)) for other, lacks in fewer]

    def _is_returned(
        self, simpler: Searched, kept: Sequence[str], fuller: Searched, names: Sequence[str]
    ) -> bool:
        """Say whether one is the other with some knobs as the baseline has them."""
        configuration = fuller.trial.configuration
        ours, theirs = simpler.trial.configuration.knobs(), configuration.knobs()
        if any(name not in names or ours[name] != theirs[name] for name in kept):
            return False
        for name in names:
            if name not in kept:
                configuration = returned(configuration, name, self._baseline)
        return configuration == simpler.trial.configuration

    def _cost(self, simpler: Searched, fuller: Searched, fuller_j: float | None) -> _Cost:
        """Say what it costs that the simpler one lacks knobs: energy, or an SLO.

        `fuller_j` is what the other is taken to use, J a token. What uses more than the tolerance
        is in doubt until it is surely more, or little more for what is known by then.
        """
        simpler_j, behaves = energy_j(simpler.trial), simpler.behaved_as(fuller)
        if not simpler_j or not fuller_j or not self._keeps_slos(simpler, fuller, behaves=behaves):
            return _Cost.SOME
        more = math.log(simpler_j / fuller_j) - _SAME_ENERGY
        error = simpler.error_beside(fuller)
        is_last = min(simpler.windows, fuller.windows) >= _MOST_WINDOWS
        near = _NEAR if fuller.windows > 1 else 0.0
        if more <= error * (_LIKELY if behaves or is_last else near):
            return _Cost.NONE
        return _Cost.SOME if is_last or more > _SURELY * error else _Cost.IN_DOUBT

    def _keeps_slos(self, simpler: Searched, fuller: Searched, *, behaves: bool) -> bool:
        """Say whether each SLO is met by its margin, or keeps the fuller one's value."""
        if simpler.trial.measurement is None or fuller.trial.measurement is None:
            return False
        ours, theirs = simpler.trial.measurement.metrics, fuller.trial.measurement.metrics
        noise = _SAME_IF_MEANS_ARE if behaves else _SAME_VIOLATION
        for slo in self._slos:
            if slo.metric not in ours or slo.metric not in theirs:
                return False
            same = slo.violation(theirs[slo.metric]) + noise
            allowed = max(same, -self._margins.get(str(slo), math.inf))
            if slo.violation(ours[slo.metric]) > allowed + _FLOATING:
                return False
        return True


def _in_their_place(found: Sequence[Searched], simpler: Mapping[int, int]) -> list[Searched]:
    """Leave out what has a simpler equal, which stands with all windows that behaved the same.

    Of equals the best by chance would lead. `simpler` are numbers of trials.
    """
    groups: dict[int, list[Searched]] = {one.trial.number: [one] for one in found}
    for one in found:
        if (end := simpler.get(one.trial.number)) is None:
            continue
        group = groups[end]
        if not group[0].trial.baseline and group[0].equals(one):
            group.append(one)
        del groups[one.trial.number]
    return [together(group) for group in groups.values()]


def _less_luck(
    fuller: Searched, simpler: Sequence[tuple[Searched, frozenset[str]]]
) -> float | None:
    """Return the energy of a trial, J a token, as those that behave alike with fewer knobs tell it.

    `simpler` has the knobs that each of them lacks. Each knob adds its own share to the logarithm
    of the energy: where they are more than the knobs, the least squares take part of the luck.
    """
    own_j = energy_j(fuller.trial)
    alike = [
        (theirs_j, lacks)
        for other, lacks in simpler
        if (theirs_j := energy_j(other.trial)) and other.behaved_as(fuller)
    ]
    names = sorted(frozenset().union(*(lacks for _, lacks in alike)))
    if not own_j or len(alike) <= len(names):
        return own_j
    all_of_them = [(own_j, frozenset[str]()), *alike]
    rows = [[1.0, *(float(name in lacks) for name in names)] for _, lacks in all_of_them]
    logs = [math.log(each_j) for each_j, _ in all_of_them]
    return float(np.exp(np.linalg.lstsq(np.array(rows), np.array(logs), rcond=None)[0][0]))
