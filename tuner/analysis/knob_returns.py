"""Knob returns: which knobs of a configuration can go back to the baseline's value at no cost.

A trial with one knob less than another, on the same stretch of traffic, says what that knob
contributes. Two windows differ by some noise, energy by that of the power sensor too. So what keeps
the energy counts as well as what behaves the same: a limit that never bound changes no latency.
The trial with all of the knobs is the best of many windows, and so likely a lucky one. Several
trials that behave as it does and lack some of its knobs tell how lucky.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analysis.outcomes import energy_j, measured
from tuner.configuration import Configuration
from tuner.slo import Slo, meets_all
from tuner.store.rows import TrialRow

_SAME_ENERGY = 0.005  # a logarithm
# Relative differences within which two windows behaved the same.
_SAME_BEHAVIOUR = {"mean_tpot_ms": 0.01, "mean_ttft_ms": 0.05}
_SENSOR_NOISE = 0.03  # of the energies of two windows that behaved the same
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


def is_no_worse(
    simpler: TrialRow,
    fuller: TrialRow,
    fuller_j: float | None,
    slos: Sequence[Slo],
    margins: Mapping[str, float],
) -> bool:
    """Say whether the trial with a knob less uses no more energy, and meets the SLOs as well.

    It does if it is within an SLO by its margin, or keeps the other's value. `fuller_j` is what the
    other is taken to use, J a token.
    """
    if simpler.failure is not None or simpler.measurement is None or fuller.measurement is None:
        return False
    ours, theirs = simpler.measurement.metrics, fuller.measurement.metrics
    behaves = _behave_alike(simpler, fuller)
    for slo in slos:
        if slo.metric not in ours or slo.metric not in theirs:
            return False
        noise = _SAME_IF_MEANS_ARE if behaves else _SAME_VIOLATION
        same = slo.violation(theirs[slo.metric]) + noise
        allowed = max(same, -margins.get(str(slo), math.inf))
        if slo.violation(ours[slo.metric]) > allowed + _FLOATING:
            return False
    simpler_j = energy_j(simpler)
    if not simpler_j or not fuller_j:
        return False
    change = math.log(simpler_j / fuller_j)
    return change <= (_SENSOR_NOISE if behaves else _SAME_ENERGY)


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
) -> dict[int, TrialRow]:
    """Return, by the number of a trial, the trial with fewer knobs that takes its place.

    `margins` says, by the text of an SLO, how far within it a window has to be to hold elsewhere.
    """
    known = [(t, returnable(t.configuration, baseline)) for t in by_configuration(trials).values()]
    known.sort(key=lambda entry: len(entry[1]))
    found: dict[int, TrialRow] = {}
    for trial in measured(trials):
        names = returnable(trial.configuration, baseline)
        fewer = [
            (other, frozenset(names).difference(kept))
            for other, kept in known
            if len(kept) < len(names) and _is_returned(other, kept, trial, names, baseline)
        ]
        trial_j = _less_luck(trial, fewer)
        for simpler, _ in fewer:
            if is_no_worse(simpler, trial, trial_j, slos, margins):
                found[trial.number] = simpler
                break
    return {number: _end_of(simpler, found) for number, simpler in found.items()}


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


def _end_of(trial: TrialRow, found: dict[int, TrialRow]) -> TrialRow:
    """Follow the chain; it ends, because each link has a knob less."""
    while trial.number in found:
        trial = found[trial.number]
    return trial


def contributions(
    trial: TrialRow, trials: Sequence[TrialRow], slos: Sequence[Slo], baseline: Configuration
) -> list[KnobContribution]:
    """Return what each knob of a trial contributes; `trials` as the search measured them."""
    index = by_configuration(trials)
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
