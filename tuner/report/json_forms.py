"""The reports as plain data for JSON: the same figures as in the tables, unrounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from tuner.report.figures import Figures, figures
from tuner.report.recommend import Recommendation
from tuner.report.trials import baseline_of, emulated, front, measured, slos_of
from tuner.slo import Slo
from tuner.store.rows import EventRow, StudyIdentity, StudySummary, TrialRow


def front_json(
    study: StudyIdentity, trials: Sequence[TrialRow], slos: Sequence[Slo] | None = None
) -> dict[str, Any]:
    """Return the Pareto front, and the default beside it."""
    bounds = slos_of(study, slos)
    baseline = baseline_of(trials)
    on_front = front(study, trials, bounds)
    return {
        "study": study.name,
        "model": study.model,
        "slos": [str(slo) for slo in bounds],
        "objectives": list(study.objectives),
        "emulated": list(emulated(study, measured(trials))),
        "front": [_trial(t, baseline, bounds) for t in on_front],
        "default": None if baseline is None else _trial(baseline, baseline, bounds),
    }


def recommendation_json(recommendation: Recommendation) -> dict[str, Any]:
    """Return the recommendation with its alternatives, the default and the warnings."""
    r = recommendation
    return {
        "study": r.study.name,
        "model": r.study.model,
        "workload": r.study.workload_name,
        "gpu": r.study.gpu,
        "driver": r.study.driver,
        "server_version": r.study.server_version,
        "slos": [str(slo) for slo in r.slos],
        "emulated": list(r.emulated),
        "is_default": r.is_default,
        "recommended": _trial(r.best, r.baseline, r.slos),
        "alternatives": [_trial(t, r.baseline, r.slos) for t in r.alternatives],
        "default": None if r.baseline is None else _trial(r.baseline, r.baseline, r.slos),
        "warnings": list(r.warnings),
        "other_studies": list(r.other_studies),
    }


def studies_json(summaries: Sequence[StudySummary]) -> list[dict[str, Any]]:
    """Return the studies with the counts of their trials."""
    return [
        _identity(s.identity)
        | {
            "trials_running": s.running,
            "trials_measured": s.measured,
            "trials_failed": s.failed,
            "finished": s.is_finished,
        }
        for s in summaries
    ]


def study_json(
    study: StudyIdentity, trials: Sequence[TrialRow], events: Sequence[EventRow]
) -> dict[str, Any]:
    """Return everything of a study but the raw records."""
    bounds = slos_of(study)
    baseline = baseline_of(trials)
    on_front = {t.number for t in front(study, trials, bounds)}
    return _identity(study) | {
        "spec": study.spec_json,
        "trials": [
            _trial(t, baseline, bounds) | {"on_front": t.number in on_front} for t in trials
        ],
        "events": [
            {"at": e.at.isoformat(), "kind": e.kind, "message": e.message, "trial": e.trial}
            for e in events
        ],
    }


def _identity(study: StudyIdentity) -> dict[str, Any]:
    """Return the identity without the specification, which may be long."""
    data = {k: _plain(v) for k, v in asdict(replace(study, spec_json={})).items()}
    del data["spec_json"]
    return data


def _trial(trial: TrialRow, baseline: TrialRow | None, slos: Sequence[Slo]) -> dict[str, Any]:
    """Return the shown figures, the configuration by kind, and every metric."""
    shown: Figures = figures(trial, baseline, slos)
    found, failure = trial.measurement, trial.failure
    return {k: _plain(v) for k, v in asdict(shown).items() if k != "knobs"} | {
        "configuration": trial.configuration.to_json(),
        "metrics": None if found is None else dict(found.metrics),
        "energy_source": None if found is None else found.energy_source.value,
        "latency_source": None if found is None else found.latency_source.value,
        "failure_kind": None if failure is None else failure.kind.value,
        "log_path": None if failure is None else _path(failure.log_path),
        "warnings": list(trial.warnings),
        "started_at": trial.started_at.isoformat(),
        "ended_at": None if trial.ended_at is None else trial.ended_at.isoformat(),
    }


def _path(path: object) -> str | None:
    return None if path is None else str(path)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value
