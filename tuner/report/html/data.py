"""The numbers of a report as data for its figures: full precision, in columns, safe inside HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.analysis.outcomes import ENERGY, feasible, metric
from tuner.configuration import Value
from tuner.metrics import METRICS
from tuner.report.html.knobs import importance, knob_names
from tuner.report.html.report_data import ReportData
from tuner.report.html.timeline import Span, event_hours, growth, spans
from tuner.report.html.windows import SHARES, Series, WindowCurves, window_curves
from tuner.report.json_forms import front_json, recommendation_json
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store.rows import TrialRow

_MOST_SLICES = 8


def report_data(report: ReportData) -> dict[str, Any]:
    """Return all that the page's figures show; `recommendation` and `front` as other commands."""
    found = report.confirmed
    timeline = spans(report)
    return {
        "study": report.study.name,
        "virtual": report.study.evaluation == "virtual",
        "recommendation": (
            None if report.recommendation is None else recommendation_json(report.recommendation)
        ),
        "front": front_json(found),
        "slos": [_slo(slo) for slo in found.slos],
        "axes": _axes(report),
        "metrics": {name: _metric(name) for name in METRICS if _has(report, name)},
        "trials": _trials(report),
        "intervals": _intervals(report),
        "spans": [_span(s) for s in timeline],
        "growth": [
            [g.end_h, g.hypervolume_share, g.least_energy_j, g.trial]
            for g in growth(report, timeline)
        ],
        "events": [
            [at_h, e.kind, e.message, e.trial]
            for at_h, e in zip(event_hours(report, timeline), report.events, strict=True)
        ],
        "windows": [_window(window_curves(w)) for w in report.windows],
        "shares": list(SHARES),
        "importance": _importance(report),
    }


def as_script(data: Mapping[str, Any]) -> str:
    """Return JSON that cannot end the script element which holds it, whatever a name contains."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _slo(slo: Slo) -> dict[str, Any]:
    return {
        "text": str(slo),
        "metric": slo.metric,
        "bound": slo.bound,
        "direction": slo.direction.value,
    }


def _metric(name: str) -> dict[str, str]:
    metric_ = METRICS[name]
    return {"unit": metric_.unit, "better": metric_.better.value, "meaning": metric_.meaning}


def _has(report: ReportData, name: str) -> bool:
    return any(metric(t, name) is not None for t in report.confirmed.trials)


def _axes(report: ReportData) -> dict[str, str]:
    """Return what the front is drawn over: two objectives, or one and the first SLO's metric."""
    objectives = [Objective.parse(text).metric for text in report.study.objectives]
    others = [
        *(name for name in objectives if name != ENERGY),
        *(slo.metric for slo in report.confirmed.slos),
        "p99_tpot_ms",
    ]
    return {"y": ENERGY if ENERGY in objectives else objectives[0], "x": others[0]}


def _trials(report: ReportData) -> dict[str, Any]:
    """Return one column per fact; a knob left at its default and a missing metric are null."""
    found = report.confirmed
    rows = found.trials
    met = {t.number for t in feasible(rows, found.slos)}
    on_front = {t.number for t in found.front}
    metrics = [name for name in METRICS if _has(report, name)]
    return {
        "number": [t.number for t in rows],
        "state": [t.state.value for t in rows],
        "baseline": [t.baseline for t in rows],
        "met": [None if t.measurement is None else t.number in met for t in rows],
        "front": [t.number in on_front for t in rows],
        "confirmed": [_repeats_if_confirmed(report, t) for t in rows],
        "reason": [None if t.failure is None else t.failure.reason for t in rows],
        "metrics": {name: [metric(t, name) for t in rows] for name in metrics},
        "knobs": _knobs(rows),
    }


def _repeats_if_confirmed(report: ReportData, trial: TrialRow) -> int | None:
    known = report.confirmed.confirmations.get(trial.number)
    return None if known is None or not known.is_confirmed else known.repeats


def _knobs(rows: Sequence[TrialRow]) -> dict[str, list[Value | None]]:
    each = [t.configuration.knobs() for t in rows]
    names = dict.fromkeys(name for knobs in each for name in knobs)
    return {name: [knobs.get(name) for knobs in each] for name in names}


def _intervals(report: ReportData) -> dict[str, dict[str, list[float]]]:
    """Return the 95 % intervals of confirmed trials, by trial and metric."""
    return {
        str(number): {
            name: [estimate.interval.low, estimate.interval.high]
            for name, estimate in known.estimates.items()
            if estimate.interval is not None
        }
        for number, known in report.confirmed.confirmations.items()
        if known.is_confirmed
    }


def _span(span: Span) -> list[Any]:
    return [
        span.lane,
        span.trial,
        span.start_h,
        span.length_h,
        span.launch_h,
        span.is_measured,
        span.reason,
        span.started_at.isoformat(timespec="seconds"),
    ]


def _window(curves: WindowCurves) -> dict[str, Any]:
    window = curves.window
    return {
        "role": window.role,
        "trial": window.trial,
        "repeat": window.repeat,
        "length_s": curves.window_length_s,
        "power_source": window.raw.power.source.value,
        "latency_source": window.raw.latency_source.value,
        "power_w": _columns(curves.power_w),
        "sm_clock_mhz": (None if curves.sm_clock_mhz is None else _columns(curves.sm_clock_mhz)),
        "running": _columns(curves.running),
        "waiting": _columns(curves.waiting),
        "quantiles_ms": {name: list(values) for name, values in curves.quantiles_ms.items()},
    }


def _columns(series: Series) -> list[list[float]]:
    return [list(series.times_s), list(series.values)]


def _importance(report: ReportData) -> dict[str, Any]:
    """Return the shares by metric, and the knobs to slice by, the most important first."""
    axes = _axes(report)
    shares = {name: importance(report.searched, name) for name in dict.fromkeys(axes.values())}
    known = list(shares[axes["y"]])
    others = [name for name in knob_names(report.searched) if name not in known]
    return {"shares": shares, "slices": [*known, *others][:_MOST_SLICES]}
