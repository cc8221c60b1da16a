"""First screen: the configuration to deploy, its saving, and how certain that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from tuner.analysis.confirmed_front import how_to_confirm
from tuner.analysis.outcomes import emulated, measured, metric, with_errors
from tuner.analysis.recommendation.recommend import Recommendation
from tuner.analysis.report_data.report_data import ReportData
from tuner.analysis.trial_summary import TrialSummary
from tuner.metrics import METRICS, WHOLE_ANSWER, Direction, OutputKind
from tuner.report.exports.deployment import deployment
from tuner.report.exports.export import EXPORTS, load_export
from tuner.report.labels import emulated_label, knob_text, metric_label, number, percent
from tuner.report.sentences.checks_text import check_lines, slo_sentence
from tuner.report.sentences.saving_text import confirmation_text, headline
from tuner.slo import Slo
from tuner.store.rows import TrialRow, TrialState


def label_of(report: ReportData) -> str:
    """Return `emulated energy and latency` or the like; empty if all was measured."""
    r = report.recommendation
    which = r.emulated if r else emulated(report.study, measured(report.searched))
    return emulated_label(with_errors(report.study, which))


def answer(report: ReportData) -> str:
    """Return the first screen as HTML."""
    r = report.recommendation
    if r is None:
        has_ended = any(t.state is not TrialState.RUNNING for t in report.searched)
        title = "No configuration meets the SLO" if has_ended else "No trial has ended yet"
        return (
            '<section id="answer" class="answer bad"><p class="kicker">No answer</p>'
            f"<h1>{title}</h1>"
            f'<p class="sure">{escape(report.no_answer or "")}</p></section>'
        )
    best = r.summary_of(r.best)
    place = " · ".join((r.study.model, r.study.workload_name, r.study.gpu, r.study.server_version))
    return (
        f'<section id="answer" class="answer {_mood(r, best)}">'
        f'<p class="kicker">{escape(place)}</p>'
        f"<h1>{_headline(r, best)}</h1>"
        f'<p class="sure">{_sure(r, best)}</p>'
        f"{_checks(r)}"
        f'<div class="tiles">{_tiles(r, best)}</div>'
        f'<div class="deploy">{_deploy(r)}{_warnings(r.warnings)}</div></section>'
    )


def _mood(r: Recommendation, best: TrialSummary) -> str:
    if r.is_default or best.tied_with_default:
        return "even"
    return "good" if best.saves_surely else "open"


def _headline(r: Recommendation, best: TrialSummary) -> str:
    said = headline(r)
    if r.is_default:
        return escape(_capital(str(said)), quote=False)
    return (
        f'<span class="nowrap">Deploy trial {best.number}:</span> '
        f'<em class="nowrap">{escape(said.emphasised)}</em>{escape(said.rest, quote=False)}'
    )


def _sure(r: Recommendation, best: TrialSummary) -> str:
    """Return how far the answer can be believed, in one sentence."""
    first, _, rest = confirmation_text(best).partition(" ")
    text = f"<b>{escape(_capital(first))}</b> {escape(rest)}"
    if not best.confirmed:
        return f"{text}. {_code(how_to_confirm(r.study))} measures the front again."
    if best.requests is not None:
        text += f"; latencies of {best.requests:,} requests"
    if (verdict := slo_sentence(r)) is not None:
        text += f"; {escape(verdict)}"
    return f"{text}; {escape(r.confirmed.outputs(r.best))}."


def _checks(r: Recommendation) -> str:
    lines = [line[0].upper() + line[1:] for line in check_lines(r)]
    return f'<p class="sure">{escape(". ".join(lines))}.</p>' if lines else ""


def _code(text: str) -> str:
    return f"<code>{escape(text.strip('`'))}</code>"


def _tiles(r: Recommendation, best: TrialSummary) -> str:
    default = None if r.baseline is None else r.summary_of(r.baseline)
    saving = best.saving_interval_percent
    tiles = [
        _tile(
            "Saving",
            percent(best.saving_percent),
            "" if saving is None else f"{saving[0]:.1f} to {saving[1]:.1f} %",
        )
    ]
    for name, of in _tiles_before(best.kind):
        tiles.append(_tile(name, number(of(best)), _beside(default, of)))
    tiles += [_slo_tile(slo, r.best, r.baseline) for slo in r.slos]
    tiles += _check_tiles(r)
    for name, of in _tiles_after(best.kind):
        if of(best) is not None:
            tiles.append(_tile(name, number(of(best)), _beside(default, of)))
    return "".join(tiles)


def _check_tiles(r: Recommendation) -> list[str]:
    """Return the headroom and the idle power."""
    ours = r.checks_of(r.best)
    theirs = None if r.baseline is None else r.checks_of(r.baseline).headroom
    unit = "in flight" if ours.is_closed_loop else "requests/s"
    tiles = []
    if ours.headroom is not None:
        note = "" if theirs is None else f"default {number(theirs.holds)}"
        tiles.append(_tile(f"Headroom, {unit}", number(ours.headroom.holds), note))
    if ours.idle_power_w is not None:
        tiles.append(_tile("Idle power, W", number(ours.idle_power_w), "loaded, no requests"))
    return tiles


_Figure = Callable[[TrialSummary], float | None]


def _tiles_before(kind: OutputKind) -> tuple[tuple[str, _Figure], ...]:
    return (
        (f"J per {kind.unit}", lambda f: f.energy_per_unit_j),
        (f"kWh per {kind.many}", lambda f: f.kwh_per_many),
    )


def _tiles_after(kind: OutputKind) -> tuple[tuple[str, _Figure], ...]:
    means = [name for name in kind.costs if name.startswith("mean_")]
    throughput = f"Throughput, {METRICS[kind.throughput].unit}"
    return (
        *(_mean_latency(name) for name in means),
        ("Offered, requests/s", lambda f: f.offered_rate_req_s),
        (throughput, lambda f: f.metrics.get(kind.throughput)),
        ("Mean power, W", lambda f: f.mean_power_w),
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _mean_latency(name: str) -> tuple[str, _Figure]:
    """Return a mean latency: of whole answers in seconds, of tokens in milliseconds."""
    is_whole = name.removeprefix("mean_") in WHOLE_ANSWER
    unit, per_ms = ("s", 1e-3) if is_whole else ("ms", 1.0)
    return (
        _capital(f"{metric_label(name)}, {unit}"),
        lambda f: None if (ms := f.metrics.get(name)) is None else ms * per_ms,
    )


def _beside(default: TrialSummary | None, of: _Figure) -> str:
    return "" if default is None else f"default {number(of(default))}"


def _tile(name: str, value: str, note: str, extra: str = "") -> str:
    """Return one tile; `value` and `extra` are HTML, `name` and `note` plain text."""
    return (
        f'<div class="tile"><span class="name">{escape(name)}</span>'
        f'<span class="value">{value}</span><span class="note">{escape(note)}</span>{extra}</div>'
    )


def _slo_tile(slo: Slo, best: TrialRow, baseline: TrialRow | None) -> str:
    """Return how much of an SLO's bound is used."""
    value, default = metric(best, slo.metric), metric(baseline, slo.metric)
    unit = METRICS[slo.metric].unit
    sign = "≤" if slo.direction is Direction.MIN else "≥"
    note = f"SLO {sign} {slo.bound:g} · default {number(default)}"
    bar = ""
    if value is not None and slo.direction is Direction.MIN and slo.bound > 0.0:
        used = 100.0 * value / slo.bound
        state = "over" if used > 100.0 else "near" if used > 90.0 else "within"
        bar = (
            f'<span class="bar {state}" role="img" aria-label="{used:.0f} % of the bound">'
            f'<i style="width:{min(used, 100.0):.1f}%"></i></span>'
        )
    return _tile(f"{metric_label(slo.metric)}, {unit}", number(value), note, bar)


def _deploy(r: Recommendation) -> str:
    """Return the knobs, and the whole configuration as files to copy."""
    knobs = r.best.configuration.knobs()
    chips = "".join(
        f"<li><span>{escape(name)}</span> <b>{escape(knob_text(value))}</b></li>"
        for name, value in knobs.items()
    )
    wanted = deployment(r)
    names = "".join(f'<option value="{name}">{name}</option>' for name in EXPORTS)
    texts = "".join(
        f'<pre id="export-{name}" tabindex="0"{"" if at == 0 else " hidden"}>'
        f"{escape(load_export(name)(wanted))}</pre>"
        for at, name in enumerate(EXPORTS)
    )
    return (
        '<div class="config"><h2>What to deploy</h2>'
        f'<ul class="chips">{chips or "<li><b>all defaults</b></li>"}</ul>'
        "<details><summary>As a file to paste</summary>"
        f'<label>Form <select id="export">{names}</select></label> '
        f'<button type="button" id="copy">Copy</button>{texts}</details></div>'
    )


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(w)}</li>" for w in warnings)
    return f'<div class="warnings"><h2>Before you do</h2><ul>{items}</ul></div>'
