"""What a tracking server is told of a study: a summary, and a run of each trial.

Metrics have the tuner's own names, with their units. What no device measured is said in the tags
and in the name of every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tuner.analysis.confirmed_front import ConfirmedFront
from tuner.analysis.outcomes import meets_slo
from tuner.errors import NoFeasibleConfigurationError, UsageError
from tuner.host.redaction import redacted
from tuner.records import Source
from tuner.report.study_results import StudyResults
from tuner.store import TrialRow


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One run: of a trial, or of the study as a whole, whose `number` is None."""

    number: int | None
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    started_at: datetime
    ended_at: datetime | None
    is_failed: bool = False


def summary_run(study: StudyResults) -> TrackedRun:
    """Return the study as a run: its recommendation, what it saves, and the default's figures."""
    of, found = study.identity, study.confirmed_front
    params: dict[str, str] = {}
    metrics: dict[str, float] = {"trials": float(len(study.rows)), "spent_s": of.spent_s}
    try:
        best = study.recommendation.best
    except (NoFeasibleConfigurationError, UsageError):
        best = None
    if found.baseline is not None and found.baseline.measurement is not None:
        metrics |= {f"default.{n}": v for n, v in found.baseline.measurement.metrics.items()}
    if best is not None:
        shown = found.summary(best)
        params = {name: str(value) for name, value in shown.knobs.items()}
        metrics |= dict(shown.metrics)
        for name, value in (
            ("saving_percent", shown.saving_percent),
            ("slo_miss_chance", shown.slo_miss_chance),
        ):
            if value is not None:
                metrics[name] = value
    tags = _tags(study) | ({} if best is None else {"tuner_recommended": str(best.number)})
    return TrackedRun(
        None, _named(study, study.name), tags, params, metrics, of.created_at, of.finished_at
    )


def trial_runs(study: StudyResults) -> list[TrackedRun]:
    """Return a run of each trial that has ended."""
    found = study.confirmed_front
    by_number = {trial.number: trial for trial in found.trials}
    return [
        _trial_run(study, found, by_number[row.number])
        for row in study.rows
        if row.ended_at is not None
    ]


def _trial_run(study: StudyResults, found: ConfirmedFront, trial: TrialRow) -> TrackedRun:
    met = meets_slo(trial, found.slos)
    on_front = trial.number in {t.number for t in found.front}
    tags = _tags(study) | {
        "tuner_trial": str(trial.number),
        "tuner_role": "default" if trial.baseline else "front" if on_front else "trial",
        "tuner_slo": "unknown" if met is None else "met" if met else "missed",
    }
    if trial.failure is not None:
        tags["tuner_failure"] = redacted(f"{trial.failure.kind.value}: {trial.failure.reason}")
    return TrackedRun(
        number=trial.number,
        name=_named(study, f"trial {trial.number}"),
        tags=tags,
        params={name: str(value) for name, value in trial.configuration.knobs().items()},
        metrics={} if trial.measurement is None else dict(trial.measurement.metrics),
        started_at=trial.started_at,
        ended_at=trial.ended_at,
        is_failed=trial.failure is not None,
    )


def _tags(study: StudyResults) -> dict[str, str]:
    of = study.identity
    return {
        "tuner_study": study.name,
        "tuner_created": of.created_at.isoformat(),
        "tuner_model": of.model,
        "tuner_workload": of.workload_name,
        "tuner_gpu": of.gpu,
        "tuner_server": of.server_version,
        "tuner_slos": ", ".join(of.slos) or "none",
        "tuner_energy": of.energy_source.value,
        "tuner_latency": of.latency_source.value,
    }


def _named(study: StudyResults, name: str) -> str:
    sources = (study.identity.energy_source, study.identity.latency_source)
    return f"{name} [emulated]" if Source.EMULATED in sources else name
