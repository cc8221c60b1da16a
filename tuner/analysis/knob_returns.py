"""Knob returns: which knobs of a configuration can go back to the baseline's value at no cost.

A trial with one knob less than another, on the same stretch of traffic, says what that knob
contributes. Two windows differ by some noise, energy by that of the power sensor too. So a knob
goes back unless it is shown to save: what is within the noise is measured again, on the same
stretch, and the mean of all windows of a configuration counts. What behaves the same needs no
further window: a limit that never bound changes no latency. The trial with all of the knobs is the
best of many windows, and so likely a lucky one. Several trials that behave as it does and lack some
of its knobs tell how lucky.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from tuner.analysis.outcomes import energy_j, measured
from tuner.configuration import Configuration
from tuner.records import Measurement
from tuner.slo import Slo, meets_all
from tuner.store.rows import TrialRow

_SAME_ENERGY = 0.005  # a logarithm
# Relative differences within which two windows behaved the same.
_SAME_BEHAVIOUR = {"mean_tpot_ms": 0.01, "mean_ttft_ms": 0.05}
_WINDOW_NOISE = 0.01  # standard deviation of the energy from window to window, docs/h200.md
# Standard errors beyond the tolerance. So many are surely more; what is less far beyond goes back
# after the last window, and what is near once the fuller one was measured again: its luck is out.
_SURELY, _LIKELY, _NEAR = 3.0, 2.0, 1.0
_MOST_WINDOWS = 3  # of each of two configurations
_SAME_VIOLATION = 0.02  # of a percentile, from launch to launch
_SAME_IF_MEANS_ARE = 0.05  # where the mean latencies are the same: a p99 has more noise
_FLOATING = 1e-9


@dataclass(frozen=True, slots=True)
class KnobContribution:
    """What a knob of a configuration does: the effect of its going back to the baseline's value.

    `energy_percent` is the change of energy per output token, `meets_slo` whether every SLO is
    still met; both by single windows of the search, None if that was not measured.
    """

    name: str
    energy_percent: float | None
    meets_slo: bool | None


class Cost(Enum):
    """What it costs that some knobs of a configuration go back."""

    NONE = auto()
    SOME = auto()
    IN_DOUBT = auto()  # more windows would tell


@dataclass(frozen=True, slots=True)
class Searched:
    """What the search measured of a configuration: its first trial, with the means of all windows.

    All of them are on the same stretch of traffic.
    """

    trial: TrialRow
    windows: int


def searched(trials: Sequence[TrialRow]) -> list[Searched]:
    """Return the measured configurations, in the order of their first trials."""
    groups: dict[str, list[TrialRow]] = {}
    for trial in measured(trials):
        groups.setdefault(key_of(trial.configuration), []).append(trial)
    return [Searched(_with_means(rows), len(rows)) for rows in groups.values()]


def _with_means(rows: Sequence[TrialRow]) -> TrialRow:
    windows = [t.measurement for t in rows if t.measurement is not None]
    if any(window.ended_early is not None for window in windows):
        return rows[0]  # a lower bound has no part in a mean
    return _with_mean(rows[0], windows, [1] * len(windows))


def _with_mean(trial: TrialRow, windows: Sequence[Measurement], weights: Sequence[int]) -> TrialRow:
    if len(windows) < 2:
        return trial
    names = frozenset(windows[0].metrics).intersection(*(window.metrics for window in windows))
    means = {
        name: float(np.average([window.metrics[name] for window in windows], weights=weights))
        for name in names
    }
    return replace(trial, measurement=replace(windows[0], metrics=means))


def _in_their_place(found: Sequence[Searched], simpler: Mapping[int, int]) -> list[Searched]:
    """Leave out what has a simpler equal, which stands with all windows that behaved the same.

    Of equals the best by chance would lead. `simpler` are numbers of trials.
    """
    groups: dict[int, list[Searched]] = {one.trial.number: [one] for one in found}
    for one in found:
        if (end := simpler.get(one.trial.number)) is None:
            continue
        group = groups[end]
        if not group[0].trial.baseline and _is_same(group[0], one):
            group.append(one)
        del groups[one.trial.number]
    return [_together(group) for group in groups.values()]


def _together(ones: Sequence[Searched]) -> Searched:
    windows = [one.trial.measurement for one in ones if one.trial.measurement is not None]
    weights = [one.windows for one in ones]
    return Searched(_with_mean(ones[0].trial, windows, weights), sum(weights))


def _is_same(one: Searched, other: Searched) -> bool:
    """Say whether two behaved the same, with energies within the noise."""
    ours_j, theirs_j = energy_j(one.trial), energy_j(other.trial)
    if not ours_j or not theirs_j or not _behave_alike(one.trial, other.trial):
        return False
    return abs(math.log(ours_j / theirs_j)) <= _SURELY * _error(one, other)


def _error(one: Searched, other: Searched) -> float:
    """Return the standard error of the logarithm of two energies' ratio."""
    return _WINDOW_NOISE * math.sqrt(1.0 / one.windows + 1.0 / other.windows)


def returnable(configuration: Configuration, baseline: Configuration) -> list[str]:
    """Return the knobs that differ from the baseline's; the load is not one of them."""
    theirs, load = baseline.knobs(), configuration.offered
    return [
        name
        for name, value in configuration.knobs().items()
        if name not in load and (name not in theirs or theirs[name] != value)
    ]


def returned(configuration: Configuration, name: str, baseline: Configuration) -> Configuration:
    """Return the configuration with one knob as the baseline has it: mostly not set."""
    ours, theirs = configuration.to_json(), baseline.to_json()
    for section, values in ours.items():
        values.pop(name, None)
        if name in theirs[section]:
            values[name] = theirs[section][name]
    return Configuration.from_json(ours)


def key_of(configuration: Configuration) -> str:
    """Return a text that is the same for equal configurations."""
    return json.dumps(configuration.to_json(), sort_keys=True)


def by_configuration(trials: Sequence[TrialRow]) -> dict[str, TrialRow]:
    """Return the ended trials by their configuration; of equal ones a measured one."""
    ended = [t for t in trials if t.measurement is not None or t.failure is not None]
    order = sorted(ended, key=lambda t: t.measurement is not None and t.failure is None)
    return {key_of(t.configuration): t for t in order}


def cost_of_return(
    simpler: Searched,
    fuller: Searched,
    fuller_j: float | None,
    slos: Sequence[Slo],
    margins: Mapping[str, float],
) -> Cost:
    """Say what it costs that the simpler one lacks knobs: energy, or an SLO.

    An SLO costs nothing if it is met by its margin, or keeps the other's value. `fuller_j` is what
    the other is taken to use, J a token. What uses more than the tolerance is in doubt until it is
    surely more, or little more for what is known by then.
    """
    simpler_j = energy_j(simpler.trial)
    if not simpler_j or not fuller_j:
        return Cost.SOME
    behaves = _behave_alike(simpler.trial, fuller.trial)
    if not _keeps_slos(simpler.trial, fuller.trial, slos, margins, behaves=behaves):
        return Cost.SOME
    more = math.log(simpler_j / fuller_j) - _SAME_ENERGY
    error = _error(simpler, fuller)
    is_last = min(simpler.windows, fuller.windows) >= _MOST_WINDOWS
    near = _NEAR if fuller.windows > 1 else 0.0
    if more <= error * (_LIKELY if behaves or is_last else near):
        return Cost.NONE
    return Cost.SOME if is_last or more > _SURELY * error else Cost.IN_DOUBT


def _keeps_slos(
    simpler: TrialRow,
    fuller: TrialRow,
    slos: Sequence[Slo],
    margins: Mapping[str, float],
    *,
    behaves: bool,
) -> bool:
    if simpler.measurement is None or fuller.measurement is None:
        return False
    ours, theirs = simpler.measurement.metrics, fuller.measurement.metrics
    noise = _SAME_IF_MEANS_ARE if behaves else _SAME_VIOLATION
    for slo in slos:
        if slo.metric not in ours or slo.metric not in theirs:
            return False
        same = slo.violation(theirs[slo.metric]) + noise
        allowed = max(same, -margins.get(str(slo), math.inf))
        if slo.violation(ours[slo.metric]) > allowed + _FLOATING:
            return False
    return True


def _behave_alike(one: TrialRow, other: TrialRow) -> bool:
    if one.measurement is None or other.measurement is None:
        return False
    ours, theirs = one.measurement.metrics, other.measurement.metrics
    return all(
        name in ours and abs(ours[name] - theirs.get(name, math.inf)) <= share * ours[name]
        for name, share in _SAME_BEHAVIOUR.items()
    )


def _less_luck(
    fuller: TrialRow, simpler: Sequence[tuple[TrialRow, frozenset[str]]]
) -> float | None:
    """Return the energy of a trial, J a token, as those that behave alike with fewer knobs tell it.

    `simpler` has the knobs that each of them lacks. Each knob adds its own share to the logarithm
    of the energy: where they are more than the knobs, the least squares take part of the luck.
    """
    own_j = energy_j(fuller)
    alike = [
        (theirs_j, lacks)
        for trial, lacks in simpler
        if (theirs_j := energy_j(trial)) and _behave_alike(trial, fuller)
    ]
    names = sorted(frozenset().union(*(lacks for _, lacks in alike)))
    if not own_j or len(alike) <= len(names):
        return own_j
    all_of_them = [(own_j, frozenset[str]()), *alike]
    rows = [[1.0, *(float(name in lacks) for name in names)] for _, lacks in all_of_them]
    logs = [math.log(each_j) for each_j, _ in all_of_them]
    return float(np.exp(np.linalg.lstsq(np.array(rows), np.array(logs), rcond=None)[0][0]))


def simplified(
    trials: Sequence[TrialRow],
    slos: Sequence[Slo],
    baseline: Configuration,
    margins: Mapping[str, float],
) -> dict[int, int]:
    """Return, by the number of a trial, that of the one with fewer knobs that takes its place.

    `margins` says, by the text of an SLO, how far within it a window has to be to hold elsewhere.
    """
    return _settled(trials, slos, baseline, margins)[1]


def what_stands(
    trials: Sequence[TrialRow],
    slos: Sequence[Slo],
    baseline: Configuration,
    margins: Mapping[str, float],
) -> list[TrialRow]:
    """Return the measured configurations that no simpler one replaces.

    Each is its first trial, with the means of all windows that count as its own.
    """
    return [one.trial for one in _settled(trials, slos, baseline, margins)[0]]


def _settled(
    trials: Sequence[TrialRow],
    slos: Sequence[Slo],
    baseline: Configuration,
    margins: Mapping[str, float],
) -> tuple[list[Searched], dict[int, int]]:
    """Return what stands, and what takes whose place: more windows together may tell more."""
    ones, replaced = searched(trials), dict[int, int]()
    while simpler := _simpler(ones, slos, baseline, margins):
        ones = _in_their_place(ones, simpler)
        replaced = {number: simpler.get(end, end) for number, end in replaced.items()} | simpler
    return ones, replaced


def _simpler(
    ones: Sequence[Searched],
    slos: Sequence[Slo],
    baseline: Configuration,
    margins: Mapping[str, float],
) -> dict[int, int]:
    known, found = _by_knobs(ones, baseline), dict[int, int]()
    for fuller, _ in known:  # the fewest knobs first, so that a chain ends at once
        costs = _costs(fuller, known, slos, baseline, margins)
        free = next((simpler for simpler, _, cost in costs if cost is Cost.NONE), None)
        if free is not None:
            number = free.trial.number
            found[fuller.trial.number] = found.get(number, number)
    return found


def measured_again(
    trial: TrialRow,
    trials: Sequence[TrialRow],
    slos: Sequence[Slo],
    baseline: Configuration,
    margins: Mapping[str, float],
) -> tuple[str, ...] | None:
    """Return which knobs of a trial go back in what a further window has to tell of, if any has.

    Without knobs it is the trial itself: of the two that are compared the one with fewer windows,
    and of equals the one with all knobs, which is the likelier to have been lucky.
    """
    known = _by_knobs(_settled(trials, slos, baseline, margins)[0], baseline)
    key = key_of(trial.configuration)
    for fuller in (one for one, _ in known if key_of(one.trial.configuration) == key):
        for simpler, lacks, cost in _costs(fuller, known, slos, baseline, margins):
            if cost is Cost.IN_DOUBT:
                return tuple(sorted(lacks)) if simpler.windows < fuller.windows else ()
    return None


_Known = Sequence[tuple[Searched, Sequence[str]]]


def _by_knobs(ones: Sequence[Searched], baseline: Configuration) -> _Known:
    """Return the configurations with the knobs that they set, the fewest first."""
    known = [(one, returnable(one.trial.configuration, baseline)) for one in ones]
    return sorted(known, key=lambda entry: len(entry[1]))


def _costs(
    fuller: Searched,
    known: _Known,
    slos: Sequence[Slo],
    baseline: Configuration,
    margins: Mapping[str, float],
) -> list[tuple[Searched, frozenset[str], Cost]]:
    """Return what has fewer knobs than a trial, the fewest first, which it lacks, and the cost."""
    names = returnable(fuller.trial.configuration, baseline)
    fewer = [
        (other, frozenset(names).difference(kept))
        for other, kept in known
        if len(kept) < len(names) and _is_returned(other.trial, kept, fuller.trial, names, baseline)
    ]
    fuller_j = _less_luck(fuller.trial, [(other.trial, lacks) for other, lacks in fewer])
    return [
        (other, lacks, cost_of_return(other, fuller, fuller_j, slos, margins))
        for other, lacks in fewer
    ]


def _is_returned(
    simpler: TrialRow,
    kept: Sequence[str],
    fuller: TrialRow,
    names: Sequence[str],
    baseline: Configuration,
) -> bool:
    """Say whether one trial is the other with some knobs as the baseline has them."""
    ours, theirs = simpler.configuration.knobs(), fuller.configuration.knobs()
    if any(name not in names or ours[name] != theirs[name] for name in kept):
        return False
    configuration = fuller.configuration
    for name in names:
        if name not in kept:
            configuration = returned(configuration, name, baseline)
    return configuration == simpler.configuration


def contributions(
    trial: TrialRow, trials: Sequence[TrialRow], slos: Sequence[Slo], baseline: Configuration
) -> list[KnobContribution]:
    """Return what each knob of a trial contributes; `trials` as the search measured them."""
    index = by_configuration([*trials, *(one.trial for one in searched(trials))])
    own = index.get(key_of(trial.configuration), trial)
    found = []
    for name in returnable(trial.configuration, baseline):
        other = index.get(key_of(returned(trial.configuration, name, baseline)))
        ours_j, theirs_j = energy_j(own), energy_j(other)
        is_known = other is not None and other.measurement is not None
        percent = None
        if is_known and ours_j and theirs_j and other is not None and other.failure is None:
            percent = 100.0 * (theirs_j / ours_j - 1.0)
        meets = None
        if is_known and other is not None and other.measurement is not None:
            meets = other.failure is None and meets_all(other.measurement.metrics, slos)
        found.append(KnobContribution(name, percent, meets))
    return found
