"""Page data as JSON: the figures, and the trials in columns, unrounded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuner.analysis.outcomes import feasible, metric
from tuner.analysis.report_data.knob_importance import importance, knob_names
from tuner.analysis.report_data.report_data import ReportData
from tuner.analysis.report_data.window_curves import WindowCurves, window_curves
from tuner.configuration import Value
from tuner.metrics import METRICS
from tuner.report.figures.front import front_figure, level_mark, upright_mark
from tuner.report.figures.knobs import importance_figure, slices_figure, slices_layout
from tuner.report.figures.night import night_figure
from tuner.report.figures.trial_points import (
    axes_of,
    has_metric,
    hover_texts,
    outcome_of,
    shown_metrics,
)
from tuner.report.figures.windows import latency_figures, power_figure, window_name
from tuner.report.json_forms import front_json, recommendation_json
from tuner.report.labels import number
from tuner.slo import Slo
from tuner.store.rows import TrialRow

_MOST_SLICES = 8


def page_data(report: ReportData) -> dict[str, Any]:
    """Return all that the page's script needs; `recommendation` and `front` as other commands."""
    confirmed, recommendation = report.confirmed, report.recommendation
    windows = [window_curves(w) for w in report.windows]
    knobs = sliced_knobs(report)
    return {
        "study": report.study.name,
        "recommendation": None if recommendation is None else recommendation_json(recommendation),
        "front": front_json(confirmed),
        "slos": [_slo(slo) for slo in confirmed.slos],
        "axes": asdict(axes_of(confirmed)),
        "metrics": {name: _metric(name) for name in METRICS if has_metric(confirmed, name)},
        "shown_metrics": shown_metrics(confirmed),
        "trials": _trials(report),
        "intervals": _intervals(report),
        "sliced_knobs": knobs,
        "windows_note": _windows_note(windows),
        "figures": _figures(report, windows, knobs),
    }


def as_script(data: Mapping[str, Any]) -> str:
    """Return JSON that cannot end its script element, even if a name contains markup."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _figures(
    report: ReportData, windows: Sequence[WindowCurves], knobs: Sequence[str]
) -> dict[str, Any]:
    """Return the figures; of trials without their values, which the page fills in by number."""
    confirmed, axes = report.confirmed, axes_of(report.confirmed)
    best = None if report.recommendation is None else report.recommendation.best.number
    shares = knob_shares(report)
    return {
        "front": front_figure(confirmed, best),
        "night": night_figure(report),
        "power": power_figure(windows),
        "latency": latency_figures(windows, confirmed.slos),
        "importance": importance_figure(shares, knobs),
        "slices": {
            "traces": slices_figure(confirmed, knobs, axes.y, columns=3)["data"],
            "layouts": {
                name: slices_layout(confirmed, knobs, axes.y, columns=columns, is_narrow=is_narrow)
                for name, columns, is_narrow in (
                    ("three_columns", 3, False),
                    ("two_columns", 2, False),
                    ("narrow", 2, True),
                )
            },
        },
    }


def knob_shares(report: ReportData) -> dict[str, dict[str, float]]:
    """Return, for the metric of each axis of the front, which share each knob explains."""
    axes = axes_of(report.confirmed)
    return {name: importance(report.searched, name) for name in dict.fromkeys((axes.y, axes.x))}


def sliced_knobs(report: ReportData) -> list[str]:
    """Return the knobs to slice and colour by, those that explain most of the energy first."""
    known = list(importance(report.searched, axes_of(report.confirmed).y))
    others = [name for name in knob_names(report.searched) if name not in known]
    return [*known, *others][:_MOST_SLICES]


def _slo(slo: Slo) -> dict[str, Any]:
    """Return a bound with its mark on either axis."""
    return {
        "text": str(slo),
        "metric": slo.metric,
        "bound": slo.bound,
        "direction": slo.direction.value,
        "upright": asdict(upright_mark(slo)),
        "level": asdict(level_mark(slo)),
    }


def _metric(name: str) -> dict[str, str]:
    known = METRICS[name]
    return {"label": known.label, "unit": known.unit, "meaning": known.meaning}


def _trials(report: ReportData) -> dict[str, Any]:
    """Return one column per fact; a knob left at its default and a missing metric are null."""
    confirmed = report.confirmed
    rows = confirmed.trials
    met = {t.number for t in feasible(rows, confirmed.slos)}
    on_front = {t.number for t in confirmed.front}
    texts = hover_texts(confirmed)
    names = [name for name in METRICS if has_metric(confirmed, name)]
    return {
        "number": [t.number for t in rows],
        "outcome": [outcome_of(confirmed, t) for t in rows],
        "baseline": [t.baseline for t in rows],
        "met": [None if t.measurement is None else t.number in met for t in rows],
        "front": [t.number in on_front for t in rows],
        "confirmed": [_repeats_if_confirmed(report, t) for t in rows],
        "reason": [None if t.failure is None else t.failure.reason for t in rows],
        "hover": [texts[t.number] for t in rows],
        "metrics": {name: [metric(t, name) for t in rows] for name in names},
        "knobs": _knobs(rows),
    }


def _repeats_if_confirmed(report: ReportData, trial: TrialRow) -> int | None:
    known = report.confirmed.confirmations.get(trial.number)
    is_of_repeats = known is not None and known.stands_for(is_default=trial.baseline)
    return known.repeats if known is not None and is_of_repeats else None


def _knobs(rows: Sequence[TrialRow]) -> dict[str, list[Value | None]]:
    each = [t.configuration.knobs() for t in rows]
    names = dict.fromkeys(name for knobs in each for name in knobs)
    return {name: [knobs.get(name) for knobs in each] for name in names}


def _intervals(report: ReportData) -> dict[str, dict[str, dict[str, float]]]:
    """Return the 95 % intervals of confirmed trials, by trial and metric."""
    return {
        str(trial): {
            name: {"low": estimate.interval.low, "high": estimate.interval.high}
            for name, estimate in known.estimates.items()
            if estimate.interval is not None
        }
        for trial, known in report.confirmed.confirmations.items()
        if known.is_confirmed
    }


def _windows_note(windows: Sequence[WindowCurves]) -> str:
    """Return which windows are shown, how long they are and what of them was measured."""
    notes = []
    for curves in windows:
        window = curves.window
        which = "the search\u2019s window" if window.repeat is None else "its last repeat"
        notes.append(
            f"{window_name(curves)}: {which}, {number(curves.window_length_s)} s, power "
            f"{window.raw.power.source.value}, latency {window.raw.latency_source.value}"
        )
    return " · ".join(notes) or "No raw records are in the store."
