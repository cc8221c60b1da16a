"""The reports as plain data for JSON: the same figures as in the tables, unrounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from tuner.analysis.cards.fleet_energy import fleet_energy
from tuner.analysis.confirmed_front import ConfirmedFront, confirmation_notes, confirmed_front
from tuner.analysis.load_text import load_text
from tuner.analysis.outcomes import emulated, emulator_errors, measured
from tuner.analysis.recommendation.recommend import Recommendation
from tuner.metrics import TEXT
from tuner.report.price import Price
from tuner.report.sentences.checks_text import checks_json
from tuner.report.sentences.fleet_text import fleet_json
from tuner.report.sentences.thinking_text import levels_json
from tuner.store.rows import (
    ComparisonPoint,
    EventRow,
    RepeatRow,
    StudyIdentity,
    StudySummary,
    TrialRow,
)


def front_json(found: ConfirmedFront) -> dict[str, Any]:
    """Return the Pareto front, and the default beside it."""
    study, baseline = found.study, found.baseline
    which = emulated(study, measured(found.trials))
    return {
        "study": study.name,
        "model": study.model,
        "slos": [str(slo) for slo in found.slos],
        "objectives": list(study.objectives),
        "emulated": list(which),
        "emulator_error": emulator_errors(study, which),
        "confirmed": found.is_confirmed,
        "front": [_trial(t, found) for t in found.front],
        "default": None if baseline is None else _trial(baseline, found),
        "unconfirmed": list(found.unconfirmed),
        "dropped": list(found.dropped),
        "notes": confirmation_notes(found),
    }


def recommendation_json(
    recommendation: Recommendation, price: Price | None = None
) -> dict[str, Any]:
    """Return the recommendation with its alternatives, the default and the warnings.

    `recommended` is the trial that was asked for where `asked_for` is true.
    """
    r = recommendation
    begin, end = r.measured_at
    return {
        "study": r.study.name,
        "model": r.study.model,
        "workload": r.study.workload_name,
        "workload_sha256": r.study.workload_sha256,
        "load": load_text(r.study, r.best.configuration),
        "measured_from": begin.isoformat(),
        "measured_to": None if end is None else end.isoformat(),
        "gpu": r.study.gpu,
        "driver": r.study.driver,
        "server_version": r.study.server_version,
        "slos": [str(slo) for slo in r.slos],
        "emulated": list(r.emulated),
        "emulator_error": emulator_errors(r.study, r.emulated),
        "is_default": r.is_default,
        "confirmed": r.confirmed.is_confirmed,
        "asked_for": r.is_asked_for,
        "recommended": _trial(r.best, r.confirmed),
        "contributions": [asdict(found) for found in r.contributions],
        "alternatives": [_trial(t, r.confirmed) for t in r.alternatives],
        "default": None if r.baseline is None else _trial(r.baseline, r.confirmed),
        "roles": {role.value: number for role, number in r.roles.items()},
        "price": None if price is None else _price(r, price),
        "outputs": r.confirmed.outputs(r.best),
        "pictures": pictures_json(r),
        "energy_per_correct_answer_j": r.energy_per_correct_j(r.best),
        "thinking": levels_json(r.levels),
        "checks": checks_json(r),
        "fleet": fleet_json(fleet_energy(r)),
        "warnings": list(r.warnings),
        "other_studies": list(r.other_studies),
    }


def pictures_json(r: Recommendation) -> list[dict[str, Any]]:
    """Return the recommended trial's pictures beside the baseline's, without the pictures."""
    known = r.confirmed.confirmations.get(r.best.number)
    small = ("before", "after")
    return [
        {name: value for name, value in one.to_json().items() if name not in small}
        for one in (() if known is None else known.pictures)
    ]


def _price(r: Recommendation, price: Price) -> dict[str, Any]:
    """Return what a million output tokens, 1,000 images or an hour of video cost in GPU energy."""
    default = () if r.baseline is None else (r.baseline,)
    shown = {t.number: r.summary_of(t) for t in (r.best, *r.alternatives, *default)}
    many = r.summary_of(r.best).kind.many.replace(" ", "_").replace(",", "")
    return {
        "per_kwh": price.per_kwh,
        "currency": price.currency,
        f"per_{many}": {str(n): price.cost(f.kwh_per_many) for n, f in shown.items()},
    }


def studies_json(summaries: Sequence[StudySummary]) -> list[dict[str, Any]]:
    """Return the studies with the counts of their trials."""
    return [
        _identity(s.identity)
        | {
            "trials_running": s.running,
            "trials_measured": s.measured,
            "trials_failed": s.failed,
            "confirmation_repeats": s.confirmations,
            "finished": s.is_finished,
        }
        for s in summaries
    ]


def study_json(
    study: StudyIdentity,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    events: Sequence[EventRow],
) -> dict[str, Any]:
    """Return everything of a study but the raw records.

    Of a confirmed trial `metrics` are those of its repeats, `search_metrics` what the search had.
    """
    found = confirmed_front(study, trials, repeats)
    on_front = {t.number for t in found.front}
    return _identity(study) | {
        "spec": study.spec_json,
        "confirmed": found.is_confirmed,
        "trials": [
            _trial(t, found)
            | {"on_front": t.number in on_front, "search_metrics": _metrics(searched)}
            for t, searched in zip(found.trials, trials, strict=True)
        ],
        "repeats": [_repeat(r) for r in repeats],
        "events": [
            {"at": e.at.isoformat(), "kind": e.kind, "message": e.message, "trial": e.trial}
            for e in events
        ],
    }


def comparison_json(points: Sequence[ComparisonPoint]) -> list[dict[str, Any]]:
    """Return what other tools measured; their energy is null, for no such tool measures it."""
    return [
        asdict(point) | {"imported_at": point.imported_at.isoformat(), TEXT.energy: None}
        for point in points
    ]


def _identity(study: StudyIdentity) -> dict[str, Any]:
    """Return the identity without the specification, which may be long."""
    data = {k: _plain(v) for k, v in asdict(replace(study, spec_json={})).items()}
    del data["spec_json"]
    return data


def _metrics(trial: TrialRow) -> dict[str, float] | None:
    return None if trial.measurement is None else dict(trial.measurement.metrics)


def _repeat(repeat: RepeatRow) -> dict[str, Any]:
    found, failure = repeat.measurement, repeat.failure
    return {
        "number": repeat.number,
        "trial": repeat.trial,
        "kind": repeat.kind.value,
        "state": repeat.state.value,
        "metrics": None if found is None else dict(found.metrics),
        "failure_kind": None if failure is None else failure.kind.value,
        "reason": None if failure is None else failure.reason,
        "warnings": list(repeat.warnings),
        "started_at": repeat.started_at.isoformat(),
        "ended_at": None if repeat.ended_at is None else repeat.ended_at.isoformat(),
    }


def _trial(trial: TrialRow, confirmed: ConfirmedFront) -> dict[str, Any]:
    """Return the shown figures, the configuration by kind, and every metric."""
    shown = confirmed.summary(trial)
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
