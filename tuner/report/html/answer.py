"""First screen: the configuration to deploy, its saving, and how certain that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from tuner.analysis.confirmed_front import how_to_confirm
from tuner.analysis.outcomes import emulated, measured, metric, with_errors
from tuner.analysis.recommendation.recommend import Recommendation
from tuner.analysis.report_data.report_data import ReportData
from tuner.analysis.trial_summary import TrialSummary, kwh_of
from tuner.metrics import METRICS, WHOLE_ANSWER, Direction
from tuner.report.exports.deployment import deployment
from tuner.report.exports.export import EXPORTS, load_export
from tuner.report.labels import emulated_label, knob_text, metric_label, number, percent
from tuner.report.sentences.checks_text import check_lines, headroom_range, slo_sentence
from tuner.report.sentences.saving_text import beside_text, confirmation_text, headline
from tuner.slo import Slo
from tuner.store.rows import TrialState


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
        f'<div class="tiles">{_tiles(r, best)}</div>{_beside(r)}'
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
    saving, kind = best.saving_interval_percent, best.kind
    tiles = [
        _tile(
            "Saving",
            percent(best.saving_percent),
            "" if saving is None else f"{saving[0]:.1f} to {saving[1]:.1f} %",
        ),
        _figure_tile(r, f"J per {kind.unit}", kind.energy),
        _figure_tile(r, f"kWh per {kind.many}", kind.energy, lambda joule: kwh_of(kind, joule)),
        *(_slo_tile(r, slo) for slo in r.slos),
        *_check_tiles(r),
    ]
    means = [name for name in kind.costs if name.startswith("mean_")]
    after = (*means, "offered_rate_req_s", kind.throughput, "mean_power_w")
    tiles += [_figure_tile(r, *_shown(n)) for n in after if metric(r.best, n) is not None]
    return "".join(tiles)


def _beside(r: Recommendation) -> str:
    """Return of which windows the default's figures in the tiles are."""
    said = beside_text(r)
    return "" if said is None else f'<p class="beside">{escape(_capital(said))}.</p>'


def _check_tiles(r: Recommendation) -> list[str]:
    """Return the headroom and the idle power."""
    ours = r.checks_of(r.best)
    theirs = None if r.baseline is None else r.checks_of(r.baseline).headroom
    whole = ours.is_closed_loop
    unit = "requests at once" if whole else "requests/s"
    tiles = []
    if ours.headroom is not None:
        held = escape(headroom_range(ours.headroom, whole=whole))
        note = "" if theirs is None else f"default {headroom_range(theirs, whole=whole)}"
        tiles.append(_tile(f"Headroom, {unit}", held, note))
    if ours.idle_power_w is not None:
        tiles.append(_tile("Idle power, W", number(ours.idle_power_w), "loaded, no requests"))
    return tiles


_Scale = Callable[[float | None], float | None]


def _shown(name: str) -> tuple[str, str, _Scale]:
    """Return a tile's title, its metric, and its scale: of whole answers in seconds, not ms."""
    is_whole = name.removeprefix("mean_") in WHOLE_ANSWER
    unit, scale = ("s", _in_seconds) if is_whole else (METRICS[name].unit, _as_it_is)
    return _capital(f"{metric_label(name)}, {unit}"), name, scale


def _as_it_is(value: float | None) -> float | None:
    return value


def _in_seconds(value_ms: float | None) -> float | None:
    return None if value_ms is None else value_ms * 1e-3


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _figure_tile(r: Recommendation, title: str, name: str, scale: _Scale = _as_it_is) -> str:
    """Return a metric, and the default's of the same traffic."""
    beside = "" if r.baseline is None else f"default {number(scale(r.default_beside(name)))}"
    return _tile(title, number(scale(metric(r.best, name))), beside)


def _tile(name: str, value: str, note: str, extra: str = "") -> str:
    """Return one tile; `value` and `extra` are HTML, `name` and `note` plain text."""
    return (
        f'<div class="tile"><span class="name">{escape(name)}</span>'
        f'<span class="value">{value}</span><span class="note">{escape(note)}</span>{extra}</div>'
    )


def _slo_tile(r: Recommendation, slo: Slo) -> str:
    """Return how much of an SLO's bound is used."""
    value, default = metric(r.best, slo.metric), r.default_beside(slo.metric)
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
