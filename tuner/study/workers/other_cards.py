"""Other cards: the default's measurements there, by which the search tells cards apart."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.search.observation import Observation
from tuner.slo import Slo
from tuner.spec.objective import Objective, costs
from tuner.store import ProbeKind, RepeatRow


def default_elsewhere(
    probes: Sequence[RepeatRow], objectives: Sequence[Objective], slos: Sequence[Slo]
) -> list[Observation]:
    """Return what the default gave on each card that only a probe measured it on; without points.

    One that lacks a metric of an objective or an SLO is left out.
    """
    found = []
    for probe in probes:
        if probe.kind is not ProbeKind.CARD or probe.measurement is None:
            continue
        metrics = probe.measurement.metrics
        values = costs(tuple(objectives), metrics)
        if values is not None and all(slo.metric in metrics for slo in slos):
            violations = tuple(slo.violation(metrics[slo.metric]) for slo in slos)
            found.append(
                Observation(
                    {},
                    objectives=values,
                    violations=violations,
                    overload=0.0,
                    card=probe.owner.card,
                )
            )
    return found
