"""Rows of studies side by side, the same in the terminal, in HTML and in JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tuner.analysis.side_by_side import ComparedStudy, Difference, Figure, SideBySide
from tuner.analysis.trial_summary import TrialSummary
from tuner.metrics import METRICS
from tuner.report.labels import UNKNOWN, emulated_label, knob_text, metric_label, number


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its name, and a cell for each study. A row with no cells begins a group."""

    name: str
    cells: tuple[str, ...] = ()


def rows_of(found: SideBySide) -> list[Row]:
    """Return all rows; of those that say what was studied, first those that differ."""
    studies = found.studies
    about = [Row(name, tuple(value(study) for study in studies)) for name, value in _ABOUT]
    differing = [row for row in about if len(set(row.cells)) > 1]
    same = [row for row in about if len(set(row.cells)) == 1 and row.cells[0] != UNKNOWN]
    rows = [*differing, *same]
    for group, of in (("recommended", "recommended"), ("default", "default")):
        rows.append(Row(group))
        rows += _figure_rows(found, of)
    if knobs := _knob_rows(studies):
        rows += [Row("knobs of the recommended"), *knobs]
    return rows


def how_to_read(found: SideBySide) -> str:
    """Return what the parentheses and the second lines of the rows are."""
    first, *others = (study.identity.name for study in found.studies)
    intervals = "in parentheses 95 % intervals"
    if not others:
        return intervals
    return f"{intervals}; the second line of a figure is its difference from that of {first}"


_ABOUT: tuple[tuple[str, Callable[[ComparedStudy], str]], ...] = (
    ("note", lambda s: s.identity.note or UNKNOWN),
    ("begun", lambda s: f"{s.identity.created_at:%Y-%m-%d %H:%M} UTC"),
    ("model", lambda s: s.identity.model),
    ("GPU", lambda s: s.identity.gpu),
    ("server", lambda s: s.identity.server_version),
    ("driver", lambda s: s.identity.driver or UNKNOWN),
    ("workload", lambda s: f"{s.identity.workload_name} ({s.identity.workload_sha256[:8]})"),
    ("load", lambda s: s.load),
    ("SLO", lambda s: ", ".join(s.identity.slos) or "none"),
    ("compared with", lambda s: s.baseline_name),
    ("figures", lambda s: emulated_label(s.emulated) or "measured"),
)


def _figure_rows(found: SideBySide, of: str) -> list[Row]:
    rows = []
    for name in METRICS:
        cells = [_figures(study, of).get(name) for study in found.studies]
        if all(cell is None for cell in cells):
            continue
        changes = [None, *(_of(entry, of, name) for entry in found.differences)]
        label = f"{metric_label(name)}, {METRICS[name].unit}"
        rows.append(Row(label, tuple(_cell(c, d) for c, d in zip(cells, changes, strict=True))))
    if of == "recommended":
        savings = tuple(_saving(study) for study in found.studies)
        rows.insert(0, Row("saves of its default", savings))
        rows.insert(1, Row("SLO on traffic not seen", tuple(map(_verdict, found.studies))))
    return rows


def _figures(study: ComparedStudy, of: str) -> dict[str, Figure]:
    return study.best_metrics if of == "recommended" else study.default_metrics


def _of(entry: tuple[Difference, ...], of: str, name: str) -> Difference | None:
    return next((d for d in entry if d.of == of and d.metric == name), None)


def _cell(figure: Figure | None, change: Difference | None) -> str:
    if figure is None:
        return UNKNOWN
    text = number(figure.value)
    if figure.interval is not None:
        text += f" ({number(figure.interval[0])} to {number(figure.interval[1])})"
    if change is not None:
        text += f"\n{change.percent:+.1f} %"
        if change.interval_percent is not None:
            low, high = change.interval_percent
            text += f" ({low:+.1f} to {high:+.1f})"
    return text


def _saving(study: ComparedStudy) -> str:
    best = study.best
    if best is None:
        return "nothing met the SLO"
    if best.baseline:
        return "0 % (it is the default)"
    if best.saving_percent is None:
        return UNKNOWN
    text = f"{best.saving_percent:.1f} %"
    if best.saving_interval_percent is not None:
        low, high = best.saving_interval_percent
        text += f" ({low:.1f} to {high:.1f})"
    return f"{text}, tied" if best.tied_with_default else text


def _verdict(study: ComparedStudy) -> str:
    best = study.best
    if best is None:
        return UNKNOWN
    return best.slo_verdict or UNKNOWN if best.confirmed else "not confirmed"


def _knob_rows(studies: tuple[ComparedStudy, ...]) -> list[Row]:
    summaries: list[TrialSummary | None] = [study.best for study in studies]
    names = dict.fromkeys(name for found in summaries if found for name in found.knobs)
    return [
        Row(name, tuple(UNKNOWN if f is None else knob_text(f.knobs.get(name)) for f in summaries))
        for name in names
    ]


def side_by_side_json(found: SideBySide) -> dict[str, Any]:
    """Return the comparison for programs; differences are from the first study."""
    return {
        "studies": [_study_json(study) for study in found.studies],
        "differences": [
            {"study": study.identity.name, "from_first": [asdict(one) for one in entry]}
            for study, entry in zip(found.studies[1:], found.differences, strict=True)
        ],
        "notes": list(found.notes),
    }


def _study_json(study: ComparedStudy) -> dict[str, Any]:
    identity = study.identity
    return {
        "study": identity.name,
        "note": identity.note,
        "created_at": identity.created_at.isoformat(),
        "model": identity.model,
        "gpu": identity.gpu,
        "gpu_uuids": list(identity.gpu_uuids),
        "server": identity.server_version,
        "driver": identity.driver,
        "workload": identity.workload_name,
        "workload_sha256": identity.workload_sha256,
        "load": study.load,
        "slos": list(identity.slos),
        "emulated": list(study.emulated),
        "recommended": _side_json(study.best, study.best_metrics),
        "default": _side_json(study.default, study.default_metrics),
        "why_none": study.why_none,
    }


def _side_json(summary: TrialSummary | None, figures: dict[str, Figure]) -> dict[str, Any] | None:
    if summary is None:
        return None
    return {
        "trial": summary.number,
        "confirmed": summary.confirmed,
        "saving_percent": summary.saving_percent,
        "saving_interval_percent": summary.saving_interval_percent,
        "slo_verdict": summary.slo_verdict,
        "knobs": summary.knobs,
        "metrics": {name: asdict(figure) for name, figure in figures.items()},
    }
