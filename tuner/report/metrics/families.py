"""A study as Prometheus metrics: names, units, labels and values.

Names follow https://prometheus.io/docs/practices/naming: base units, `_total` for what only grows.
Every figure has the label `source`, which says `emulated` of what no device measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tuner.analysis.outcomes import kind_of_study, slos_of
from tuner.analysis.recommendation.recommend import Recommendation
from tuner.analysis.trial_summary import TrialSummary
from tuner.errors import NoFeasibleConfigurationError, UsageError
from tuner.records import LoadSnapshot
from tuner.report.study_results import StudyResults

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_S_PER_MS = 1e-3
_LABELS = ("study", "role", "trial", "source")


def families(study: StudyResults, *, is_running: bool) -> list[Metric]:
    """Return what the store says of a study."""
    return [*_progress(study, is_running), *_faults(study), *_figures(study)]


def power_family(study: str, now: LoadSnapshot | None) -> list[Metric]:
    """Return the present power, W; nothing while no load runs."""
    from prometheus_client.core import GaugeMetricFamily

    if now is None or now.power_w is None:
        return []
    found = GaugeMetricFamily(
        "tuner_power_watts",
        "Power of the GPUs of the server that is being measured.",
        labels=("study", "source"),
    )
    found.add_metric((study, now.power_source.value), now.power_w)
    return [found]


def _progress(study: StudyResults, is_running: bool) -> Iterator[Metric]:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        InfoMetricFamily,
    )

    of, name = study.identity, (study.name,)
    info = InfoMetricFamily("tuner_study", "What is studied.", labels=("study",))
    facts = {"model": of.model, "workload": of.workload_name, "gpu": of.gpu}
    info.add_metric(name, facts | {"server": of.server_version, "slo": ", ".join(of.slos)})
    yield info
    states = Counter(row.state.value for row in study.rows)
    trials = CounterMetricFamily("tuner_trials", "Trials by state.", labels=("study", "state"))
    for state, count in sorted(states.items()):
        trials.add_metric((*name, state), count)
    yield trials
    repeats = CounterMetricFamily("tuner_repeats", "Measurements again.", labels=("study",))
    repeats.add_metric(name, len(study.repeats))
    yield repeats
    gauges = (
        ("tuner_running", "1 while a tuner runs the study.", float(is_running)),
        ("tuner_finished", "1 once the budget is spent.", float(of.finished_at is not None)),
        ("tuner_spent_seconds", "Time of evaluations so far.", of.spent_s),
        ("tuner_budget_seconds", "Budget in time.", of.budget_s),
        ("tuner_budget_trials", "Budget in trials.", of.budget_trials),
        ("tuner_started_timestamp_seconds", "When it began.", of.created_at.timestamp()),
    )
    for title, meaning, value in gauges:
        if value is not None:
            gauge = GaugeMetricFamily(title, meaning, labels=("study",))
            gauge.add_metric(name, value)
            yield gauge


def _faults(study: StudyResults) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    kinds = Counter(row.failure.kind.value for row in study.rows if row.failure is not None)
    kinds.update(row.failure.kind.value for row in study.repeats if row.failure is not None)
    failures = CounterMetricFamily(
        "tuner_failures", "Evaluations without a measurement, by cause.", labels=("study", "kind")
    )
    for kind, count in sorted(kinds.items()):
        failures.add_metric((study.name, kind), count)
    yield failures
    events = CounterMetricFamily("tuner_events", "Events by kind.", labels=("study", "kind"))
    for kind, count in sorted(Counter(event.kind for event in study.events).items()):
        events.add_metric((study.name, kind), count)
    yield events


def _figures(study: StudyResults) -> Iterator[Metric]:
    """Yield the figures of the default and of the front, and what the recommendation saves."""
    from prometheus_client.core import GaugeMetricFamily

    found = study.confirmed_front
    recommended = _recommendation(study)
    best = None if recommended is None else recommended.best.number
    kind = kind_of_study(study.identity)
    energy = GaugeMetricFamily(
        "tuner_energy_per_unit_joules",
        "Energy of the server's GPUs per unit of output, as `unit` says.",
        labels=(*_LABELS, "unit", "confirmed"),
    )
    power = GaugeMetricFamily(
        "tuner_mean_power_watts", "Mean power of the server's GPUs in its windows.", labels=_LABELS
    )
    latency = GaugeMetricFamily(
        "tuner_latency_seconds", "A latency, as SLOs name it.", labels=(*_LABELS, "latency")
    )
    energy_source = study.identity.energy_source.value
    latency_source = study.identity.latency_source.value
    members = [*([] if found.baseline is None else [found.baseline]), *found.front]
    for number, shown in {t.number: found.summary(t) for t in members}.items():
        role = "recommended" if number == best else "default" if shown.baseline else "front"
        labels = (study.name, role, str(number))
        is_confirmed = str(shown.confirmed).lower()
        if shown.energy_per_unit_j is not None:
            of_energy = (*labels, energy_source, kind.unit, is_confirmed)
            energy.add_metric(of_energy, shown.energy_per_unit_j)
        if shown.mean_power_w is not None:
            power.add_metric((*labels, energy_source), shown.mean_power_w)
        for name in kind.columns:
            if (value_ms := shown.metrics.get(name)) is not None:
                of_latency = (*labels, latency_source, name.removesuffix("_ms"))
                latency.add_metric(of_latency, value_ms * _S_PER_MS)
    yield from (energy, power, latency, *_bounds(study))
    if recommended is not None:
        yield from _answer(study, recommended.summary_of(recommended.best))


def _bounds(study: StudyResults) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    bounds = GaugeMetricFamily(
        "tuner_slo_bound_seconds", "The SLO's bound on a latency.", labels=("study", "latency")
    )
    for slo in slos_of(study.identity):
        if slo.metric.endswith("_ms"):
            bounds.add_metric((study.name, slo.metric.removesuffix("_ms")), slo.bound * _S_PER_MS)
    yield bounds


def _answer(study: StudyResults, best: TrialSummary) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    low, high = best.saving_interval_percent or (None, None)
    source = study.identity.energy_source.value
    for name, meaning, percent in (
        ("tuner_saving_ratio", "Share of the default's energy that is saved.", best.saving_percent),
        ("tuner_saving_low_ratio", "Lower end of its 95 % interval.", low),
        ("tuner_saving_high_ratio", "Upper end of its 95 % interval.", high),
    ):
        if percent is not None:
            gauge = GaugeMetricFamily(name, meaning, labels=("study", "source"))
            gauge.add_metric((study.name, source), percent / 100.0)
            yield gauge
    if best.slo_miss_chance is not None:
        chance = GaugeMetricFamily(
            "tuner_slo_miss_ratio",
            "Share of windows on other traffic that are expected to miss an SLO.",
            labels=("study", "source"),
        )
        chance.add_metric((study.name, study.identity.latency_source.value), best.slo_miss_chance)
        yield chance


def _recommendation(study: StudyResults) -> Recommendation | None:
    try:
        return study.recommendation
    except (NoFeasibleConfigurationError, UsageError):
        return None
