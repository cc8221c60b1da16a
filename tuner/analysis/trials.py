"""Which trials of a study count: those that meet the SLO, and those on the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tuner.analysis.outcomes import (
    ENERGY,
    baseline_of,
    ended_early,
    feasible,
    front_of,
    measured,
    meets_slo,
    metric,
)
from tuner.records import Source
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store.rows import StudyIdentity, TrialRow

__all__ = [
    "ENERGY",
    "baseline_of",
    "emulated",
    "ended_early",
    "feasible",
    "front",
    "measured",
    "meets_slo",
    "metric",
    "slos_of",
]


def slos_of(study: StudyIdentity, slos: Sequence[Slo] | None = None) -> tuple[Slo, ...]:
    """Return the SLOs to read a study by: its own, with the given ones over those they replace.

    A given one replaces that on the same metric; an empty sequence is no SLO at all.
    """
    own = tuple(Slo.parse(text) for text in study.slos)
    if not slos:
        return own if slos is None else ()
    given = {slo.metric for slo in slos}
    return (*(slo for slo in own if slo.metric not in given), *slos)


def front(
    study: StudyIdentity,
    trials: Sequence[TrialRow],
    slos: Sequence[Slo] | None = None,
    objectives: Sequence[str] | None = None,
) -> list[TrialRow]:
    """Return the trials that meet every SLO and that no other such trial beats in everything.

    Best in the first objective first. SLOs and objectives are the study's own unless given. A
    trial that lacks a metric of either is not on the front.
    """
    texts = study.objectives if objectives is None else objectives
    return front_of(trials, slos_of(study, slos), [Objective.parse(text) for text in texts])


def emulated(study: StudyIdentity, trials: Iterable[TrialRow]) -> tuple[str, ...]:
    """Return which of `energy` and `latency` are emulated in the study or in any of `trials`."""
    found = [t.measurement for t in trials if t.measurement is not None]
    energy = {study.energy_source, *(m.energy_source for m in found)}
    latency = {study.latency_source, *(m.latency_source for m in found)}
    by_name = (("energy", energy), ("latency", latency))
    return tuple(name for name, sources in by_name if Source.EMULATED in sources)
