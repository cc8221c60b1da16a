"""The recommendation for a terminal."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Console
from rich.text import Text

from tuner.analysis.cards.fleet_energy import fleet_energy
from tuner.analysis.load_text import is_open_loop, load_text
from tuner.analysis.outcomes import kind_of_study, with_errors
from tuner.analysis.recommendation.recommend import Recommendation
from tuner.analysis.trial_summary import TrialSummary, kwh_of
from tuner.metrics import METRICS
from tuner.report.labels import emulated_label, metric_label, number
from tuner.report.price import Price
from tuner.report.sentences.checks_text import check_lines, has_less_headroom, slo_sentence
from tuner.report.sentences.fleet_text import fleet_text
from tuner.report.sentences.saving_text import beside_text, confirmation_text, headline
from tuner.report.terminal.front_table import heading, note_default, trial_tables
from tuner.store.rows import TrialRow

_MOST_ALTERNATIVES = 5  # in the table; with more, only those with a role
_MINUTE = timedelta(minutes=1)


def show_recommendation(
    console: Console,
    recommendation: Recommendation,
    store_option: str = "",
    price: Price | None = None,
) -> None:
    """Print the configuration to deploy, what it saves and costs, the alternatives, the warnings.

    `store_option` is what commands need to find the store again.
    """
    r = recommendation
    best = r.summary_of(r.best)
    said = "As asked" if r.is_asked_for else "Recommended"
    title = f"{said} for {r.study.model}: trial {r.best.number} of {r.study.name}"
    console.print(heading(title, emulated_label(with_errors(r.study, r.emulated))))
    console.print(_provenance(r))
    _show_saving(console, r, best)
    if r.baseline is not None and not r.is_default:
        console.print(_latency_cost(r, best))
    console.print(_energy_cost(r, best, price), highlight=False)
    if (correct_j := r.energy_per_correct_j(r.best)) is not None:
        console.print(f"{number(correct_j)} J per correct answer, wrong ones included")
    if (fleet := fleet_energy(r)) is not None:
        console.print(Text(fleet_text(fleet, kind_of_study(r.study).unit)))
    console.print(_checks(r), end="\n\n")
    shown = _worth_showing(r)
    rows = [best, *map(r.summary_of, shown)]
    console.print(trial_tables(console, rows, r.confirmed, best.number))
    if said := _contributions(r):
        console.print(Text(said))
    console.print(_alternatives(r, left_out=len(r.alternatives) - len(shown)))
    note_default(console, r.confirmed)
    for warning in r.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), warning))
    if r.other_studies:
        console.print(Text(f"other studies of this model: {', '.join(r.other_studies)}"))
    console.print(Text(_to_deploy(r, store_option), style="dim"), soft_wrap=True)


def _contributions(r: Recommendation) -> str:
    """Return what each knob is good for: what happens if it alone goes back; empty if unknown."""
    parts = []
    for found in r.contributions:
        if found.meets_slo is False:
            parts.append(f"{found.name}: misses the SLO")
        elif found.energy_percent is not None:
            parts.append(f"{found.name}: {found.energy_percent:+.1f} % energy")
    return f"without one of its knobs: {'; '.join(parts)}" if parts else ""


def _to_deploy(r: Recommendation, store_option: str) -> str:
    """Return the command that deploys what is shown, to be copied as one line."""
    given = "".join(f" --slo '{s}'" for s in r.slos if str(s) not in r.study.slos)
    trial = f" --trial {r.best.number}" if r.is_asked_for else ""
    return (
        f"to deploy: tuner recommend --study {r.study.name}{given}{trial}{store_option} "
        "--format vllm"
    )


def _provenance(r: Recommendation) -> Text:
    """Return when and on what the figures were measured, and the SLO."""
    study, (begin, end) = r.study, r.measured_at
    ended = "" if end is None or end - begin < _MINUTE else f" to {end:%Y-%m-%d %H:%M}"
    driver = "" if study.driver is None else f" (driver {study.driver})"
    lines = (
        f"{begin:%Y-%m-%d %H:%M}{ended} UTC \u00b7 {study.gpu}{driver} \u00b7 "
        f"server {study.server_version}",
        f"workload {study.workload_name}, {load_text(study, r.best.configuration)}{_offered(r)}",
        f"SLO: {', '.join(map(str, r.slos)) or 'none'}",
    )
    return Text("\n".join(lines), style="dim")


def _offered(r: Recommendation) -> str:
    """Return the rate at which requests came in the windows, beside the one that was asked for."""
    offered = r.summary_of(r.best).offered_rate_req_s
    if offered is None or not is_open_loop(r.study, r.best.configuration):
        return ""
    return f" ({number(offered)} offered in the windows)"


def _show_saving(console: Console, r: Recommendation, best: TrialSummary) -> None:
    said = headline(r)
    is_sure = r.is_default or (best.saves_surely and not r.confirmed.default_missed)
    console.print(
        Text.assemble((said.emphasised, f"bold {'green' if is_sure else 'yellow'}"), said.rest)
    )
    if best.confirmed:
        console.print(Text(f"{confirmation_text(best)}; {r.confirmed.outputs(r.best)}"))
        if (verdict := slo_sentence(r)) is not None:
            console.print(Text(verdict))


def _latency_cost(r: Recommendation, best: TrialSummary) -> Text:
    """Return each latency with its interval, beside the default's, and how many it is taken of."""
    parts = []
    for metric in best.kind.costs:
        name = "throughput" if metric == best.kind.throughput else metric_label(metric)
        unit = f" {METRICS[metric].unit}"
        ours, theirs = best.metrics.get(metric), r.default_beside(metric)
        if ours is None:
            continue
        spread = best.intervals.get(metric)
        text = f"{name} {number(ours)}{unit}"
        if spread is not None:
            text += f" ({number(spread[0])} to {number(spread[1])})"
        if theirs is not None and metric in best.changes_percent:
            text += f", {best.changes_percent[metric]:+.1f} % against {number(theirs)}{unit}"
        parts.append(text)
    of = [] if best.requests is None else [f"latencies of {best.requests:,} requests"]
    if (beside := beside_text(r)) is not None:
        of.append(beside)
    if of:
        parts.append("; ".join(of))
    return Text("\n".join(parts))


def _energy_cost(r: Recommendation, best: TrialSummary, price: Price | None) -> str:
    kwh, theirs = best.kwh_per_many, kwh_of(best.kind, r.default_beside(best.kind.energy))
    text = f"{number(kwh)} kWh"
    if price is not None:
        text += f", {number(price.cost(kwh))} {price.currency}"
    text += f" of GPU energy per {best.kind.many}"
    if theirs is not None and not best.baseline:
        text += f" (default: {number(theirs)} kWh"
        text += "" if price is None else f", {number(price.cost(theirs))} {price.currency}"
        text += ")"
    return text


def _checks(r: Recommendation) -> Text:
    """Return what the final checks say; in yellow, if the saving is bought with capacity."""
    lines = check_lines(r)
    styles = ["yellow" if at == 0 and has_less_headroom(r) else "" for at in range(len(lines))]
    return Text("\n").join(Text(line, style) for line, style in zip(lines, styles, strict=True))


def _worth_showing(r: Recommendation) -> tuple[TrialRow, ...]:
    if len(r.alternatives) <= _MOST_ALTERNATIVES:
        return r.alternatives
    named = set(r.roles.values())
    return tuple(t for t in r.alternatives if t.number in named)


def _alternatives(r: Recommendation, left_out: int) -> Text:
    """Return which member of the front is good for what."""
    parts = [f"{role.value}: trial {number}" for role, number in r.roles.items()]
    if left_out:
        parts.append(f"{left_out} more on the front: `tuner show {r.study.name}`")
    return Text("; ".join(parts), style="dim")
