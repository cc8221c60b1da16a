"""Provenance: the machine, software and method of a study, and its events."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version

import yaml

from tuner.analysis.outcomes import ended_early, kind_of_study
from tuner.analysis.report_data.report_data import ReportData
from tuner.report.labels import number
from tuner.store.rows import TrialState

_METHOD = (
    "Energy is gross energy of the server's GPUs, over the same steady window as every latency and "
    "throughput. {latencies} from when a request was scheduled, so a queue counts. A configuration "
    "of which one request failed counts as failed.",
    "Members of the front were measured again, each launched with exactly its own flags, between "
    "repeats of the default. Savings of confirmed trials have the drift of the default taken out; "
    "intervals are 95 % ones, with the relative noise of a run taken to be the same for every "
    "configuration.",
    "The scope is the GPU: a server's fans, CPUs and power supply come on top.",
)

# how many requests, and when, is another for each of hundreds of trials
_EARLY = re.compile(r"\d+ of \d+ requests were past (\S+) in the first \d+ s")


def provenance(report: ReportData) -> str:
    """Return the machine, software and method of the study as HTML."""
    study = report.study
    states, ended = Counter(t.state for t in report.searched), len(ended_early(report.searched))
    hours = "" if study.budget_s is None else f" of {study.budget_s / 3600.0:g}"
    clock = "virtual hours" if study.evaluation == "virtual" else "hours"
    trials = "" if study.budget_trials is None else f" of {study.budget_trials}"
    rows = [
        ("study", study.name),
        ("model", study.model),
        ("workload", f"{study.workload_name} ({study.workload_sha256[:12]})"),
        ("search space", f"{study.space_name} ({study.space_sha256[:12]})"),
        ("SLO", ", ".join(str(slo) for slo in report.confirmed.slos) or "none"),
        ("objectives", ", ".join(study.objectives)),
        ("evaluation", study.evaluation),
        ("server", study.server_version),
        ("GPU", f"{study.gpu}, driver {study.driver or 'none'}"),
        ("energy", study.energy_source.value),
        ("latency", study.latency_source.value),
        ("started", _utc(study.created_at)),
        ("finished", _utc(study.finished_at) if study.finished_at else "not yet"),
        (
            "trials",
            f"{len(report.searched)}{trials}: {states[TrialState.MEASURED]} measured"
            f"{f' ({ended} ended early)' if ended else ''}, {states[TrialState.FAILED]} failed, "
            f"{states[TrialState.RUNNING]} running",
        ),
        ("repeats", str(len(report.repeats))),
        ("time spent", f"{number(study.spent_s / 3600.0)}{hours} {clock}"),
        ("report", f"tuner {version('tuner')}, {_utc(datetime.now(UTC))}"),
    ]
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in rows)
    kind = kind_of_study(study)
    of_text = "TTFT and end-to-end latency count"
    counted = of_text if kind.output.is_text else f"The {kind.output} latency counts"
    texts = (text.format(latencies=counted) for text in _METHOD)
    method = "".join(f"<p>{escape(text)}</p>" for text in texts)
    spec = yaml.safe_dump(study.spec_json, sort_keys=False, allow_unicode=True)
    return (
        f'<dl class="facts">{facts}</dl>{method}'
        "<details><summary>The whole specification</summary>"
        f'<pre tabindex="0">{escape(spec)}</pre></details>'
    )


def events(report: ReportData) -> str:
    """Return what happened, and why trials failed, the most frequent reason first."""
    failures = Counter(
        (t.failure.kind.value, _EARLY.sub(r"requests were past \1", t.failure.reason))
        for t in report.searched
        if t.failure is not None
    )
    parts = []
    if report.events:
        rows = [(_utc(e.at), e.kind, _trial(e.trial), e.message) for e in report.events]
        parts.append(_table("Events", ("time", "event", "trial", "what"), rows))
    if failures:
        reasons = [(str(n), kind, reason) for (kind, reason), n in failures.most_common(50)]
        title = "Why trials failed or were ended early"
        parts.append(_table(title, ("trials", "whose fault", "reason"), reasons))
        if len(failures) > 50:
            parts.append(f'<p class="empty">and {len(failures) - 50} other reasons</p>')
    return "".join(parts) or '<p class="empty">Nothing went wrong, and nothing happened.</p>'


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return (
        f'<h3>{escape(title)}</h3><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(title)}"><table class="words"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _trial(number_: int | None) -> str:
    return "\u2013" if number_ is None else str(number_)


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
