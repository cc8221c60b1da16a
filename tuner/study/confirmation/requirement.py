"""Required load of a confirmation: what cannot hold at the load of `--headroom` is left out.

A would-be recommendation is measured at that load before it is confirmed. By how much its latencies
were longer there than in the search says of the others whether they can hold.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tuner.analysis.deployment.checks import load_value, required_load, unfit_trials
from tuner.analysis.outcomes import measured
from tuner.slo import Slo
from tuner.store import ProbeKind, RepeatRow, StudyIdentity, TrialRow


def able_trials(
    study: StudyIdentity,
    trials: Sequence[TrialRow],
    rows: Sequence[RepeatRow],
    slos: Sequence[Slo],
) -> list[TrialRow]:
    """Return the trials that may be deployed by the probes among `rows`; the default stays.

    One that held at the required load stays, too. Of the others those are left out of which that is
    not to be expected, once any has missed an SLO there.
    """
    unfit, required = set(unfit_trials(study, rows, slos)), required_load(study)
    probes = [
        row
        for row in rows
        if row.kind is ProbeKind.HEADROOM
        and row.load is not None
        and required is not None
        and load_value(row.load) >= required
    ]
    out = unfit | (_out_of_reach(trials, probes, slos) if unfit else set())
    return [t for t in trials if t.baseline or t.number not in out]


def _out_of_reach(
    trials: Sequence[TrialRow], probes: Sequence[RepeatRow], slos: Sequence[Slo]
) -> set[int]:
    """Return the trials that were not probed, and would miss an SLO by as much as others lost."""
    probed, out = {row.trial for row in probes}, set()
    for slo in slos:
        searched = {
            t.number: slo.violation(t.measurement.metrics[slo.metric])
            for t in measured(trials)
            if t.measurement is not None and slo.metric in t.measurement.metrics
        }
        lost = [
            slo.violation(row.measurement.metrics[slo.metric]) - searched[row.trial]
            for row in probes
            if row.measurement is not None
            and slo.metric in row.measurement.metrics
            and row.trial in searched
        ]
        if lost:
            more = statistics.median(lost)
            out |= {n for n, value in searched.items() if value + more > 0.0}
    return out - probed
