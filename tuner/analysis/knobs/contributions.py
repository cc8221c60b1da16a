"""Knob contributions: what each knob of a configuration does, by the search's windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.analysis.knobs.returned import by_configuration, key_of, returnable, returned
from tuner.analysis.knobs.searched import searched
from tuner.analysis.outcomes import energy_j
from tuner.configuration import Configuration
from tuner.slo import Slo, meets_all
from tuner.store.rows import TrialRow


@dataclass(frozen=True, slots=True)
class KnobContribution:
    """What a knob of a configuration does: the effect of its going back to the baseline's value.

    `energy_percent` is the change of energy per output token, `meets_slo` whether every SLO is
    still met; both by the windows of the search, None if that was not measured.
    """

    name: str
    energy_percent: float | None
    meets_slo: bool | None


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
