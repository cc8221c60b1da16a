"""The front and the default side by side, with the same figures as `tuner recommend`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tuner.analysis.outcomes import kind_of_study
from tuner.analysis.report_data.report_data import ReportData
from tuner.analysis.trial_summary import TrialSummary
from tuner.metrics import METRICS, OutputKind
from tuner.report.labels import knob_text, metric_label, number, percent
from tuner.spec.stored import StoredSpec


def comparison(report: ReportData) -> str:
    """Return the table of the front with the default below it, as `tuner recommend` shows it."""
    found = report.confirmed
    rows = [found.summary(t) for t in found.front]
    default = found.baseline
    if default is not None and all(row.number != default.number for row in rows):
        rows.append(found.summary(default))
    if not rows:
        return '<p class="empty">No trial has ended yet.</p>'
    best = None if report.recommendation is None else report.recommendation.best.number
    knobs = list(dict.fromkeys(name for row in rows for name in row.knobs))
    kind, baseline = kind_of_study(report.study), StoredSpec.of(found.study).baseline_row
    head = "".join(f'<th scope="col">{_soft(h)}</th>' for h in (*_heads(kind), *knobs))
    body = "".join(_row(kind, row, best, knobs, baseline) for row in rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Comparison table">'
        f'<table id="comparison"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _heads(kind: OutputKind) -> tuple[str, ...]:
    latencies = (f"{metric_label(name)} {METRICS[name].unit}" for name in kind.columns)
    units = (METRICS[kind.throughput].unit, "W", "SLO", "runs")
    return ("trial", METRICS[kind.energy].unit, "saving", *latencies, *units)


def _soft(name: str) -> str:
    """Return an escaped name that may be broken after an underscore."""
    return escape(name).replace("_", "_<wbr>")


def _row(
    kind: OutputKind, row: TrialSummary, best: int | None, knobs: Sequence[str], baseline: str
) -> str:
    role = "recommended" if row.number == best else "default" if row.baseline else ""
    said = baseline if role == "default" else role
    tag = f' <span class="tag">{said}</span>' if said else ""
    cells = [
        _with_interval(row.energy_per_unit_j, row.energy_interval_j),
        _saving(row),
        *(number(row.metrics.get(name)) for name in (*kind.columns, kind.throughput)),
        number(row.mean_power_w),
        _slo_mark(row),
        str(row.repeats) if row.confirmed else "unconfirmed",
        *(escape(knob_text(row.knobs.get(name))) for name in knobs),
    ]
    return (
        f'<tr class="{role}"><th scope="row"><button type="button" class="pick" '
        f'data-trial="{row.number}">{row.number}</button>{tag}</th>'
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    )


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return number(value)
    half = (interval[1] - interval[0]) / 2.0
    spread = f"{half:,.0f}" if half >= 10.0 else f"{half:.2g}"  # never with a power of ten
    return f'{number(value)}<span class="pm">±{spread}</span>'


def _saving(row: TrialSummary) -> str:
    if row.tied_with_default:
        return f"tied<span class='pm'>{percent(row.saving_percent)}</span>"
    text = percent(row.saving_percent)
    if row.saving_interval_percent is None:
        return text
    low, high = row.saving_interval_percent
    return f'{text}<span class="pm">±{(high - low) / 2.0:.1f}</span>'


def _slo_mark(row: TrialSummary) -> str:
    if row.meets_slo is None:
        return escape(row.state.value)
    if row.confirmed and row.slo_verdict == "uncertain":
        return '<span class="unsure">unsure</span>'
    return '<span class="met">met</span>' if row.meets_slo else '<span class="missed">missed</span>'
