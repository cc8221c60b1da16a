"""The night along its clock: hypervolume, least energy, launches, measurements and events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.analysis.outcomes import kind_of_study
from tuner.analysis.report_data.report_data import ReportData
from tuner.analysis.report_data.timeline import Growth, Span, event_hours, growth, spans
from tuner.metrics import METRICS
from tuner.report.figures.figure import (
    BAD,
    BLUE,
    GOOD,
    INK,
    NO_HOVER_BOX,
    WARN,
    Figure,
    Json,
    Trace,
    layout,
    plain,
    wrapped,
)
from tuner.report.labels import number

_LANES = ("search", "default again", "confirmation")
_EVENTS = "events"


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of bar: its part of the evaluations that have it."""

    name: str
    colour: str
    has: Callable[[Span], bool]
    is_launch: bool = False


_KINDS = (
    _Kind("launch", WARN, lambda s: s.launch_h is not None, is_launch=True),
    _Kind("measured", GOOD, lambda s: s.is_measured and s.reason is None),
    _Kind("failed or missed", BAD, lambda s: not s.is_measured or s.reason is not None),
)


def night_figure(report: ReportData) -> Figure:
    """Return how the front grew above what ran when."""
    timeline = spans(report)
    grown = growth(report, timeline)
    is_virtual = report.study.evaluation == "virtual"
    unit = METRICS[kind_of_study(report.study).energy].unit
    has_growth = any(g.least_energy_j is not None for g in grown)
    traces = _growth_lines(grown, unit) if has_growth else []
    traces += [_bars(kind, timeline, is_virtual=is_virtual) for kind in _KINDS]
    traces.append(_events(report, event_hours(report, timeline)))
    lanes = [lane for lane in _LANES if any(s.lane == lane for s in timeline)]
    lanes += [_EVENTS] if report.events else []
    hours = "virtual hours since the start" if is_virtual else "hours since the start"
    return Figure(data=traces, layout=_layout(lanes, hours, unit, has_growth=has_growth))


def _growth_lines(grown: Sequence[Growth], unit: str) -> list[Trace]:
    shares = [100.0 * g.hypervolume_share for g in grown]
    energies = [g.least_energy_j for g in grown]
    return [
        _line(grown, shares, "y", "hypervolume %", GOOD),
        _line(grown, energies, "y2", f"least {unit}", BLUE),
    ]


def _line(
    grown: Sequence[Growth], values: Sequence[float | None], axis: str, name: str, colour: str
) -> Trace:
    return Trace(
        type="scatter",
        mode="lines",
        name=name,
        yaxis=axis,
        showlegend=False,
        connectgaps=False,
        x=[g.end_h for g in grown],
        y=values,
        text=[f"after trial {g.trial}" for g in grown],
        line={"color": colour, "width": 2, "shape": "hv"},
        hovertemplate=f"%{{text}}<br>{name} %{{y:.4g}}{NO_HOVER_BOX}",
    )


def _bars(kind: _Kind, timeline: Sequence[Span], *, is_virtual: bool) -> Trace:
    some = [s for s in timeline if kind.has(s)]
    starts = [s.start_h if kind.is_launch else s.start_h + (s.launch_h or 0.0) for s in some]
    lengths = [
        max(0.0, (s.launch_h or 0.0) if kind.is_launch else s.length_h - (s.launch_h or 0.0))
        for s in some
    ]
    return Trace(
        type="bar",
        orientation="h",
        name=kind.name,
        yaxis="y3",
        marker={"color": kind.colour, "line": {"width": 0}},
        legendgroup=kind.name,
        y=[s.lane for s in some],
        base=starts,
        x=lengths,
        text=[_about(s, is_launch=kind.is_launch, is_virtual=is_virtual) for s in some],
        textposition="none",
        hovertemplate=f"%{{text}}{NO_HOVER_BOX}",
        customdata=[s.trial for s in some],
    )


def _about(span: Span, *, is_launch: bool, is_virtual: bool) -> str:
    took_h = (span.launch_h or 0.0) if is_launch else span.length_h
    what = "launch of" if is_launch else "in all"
    began = "" if is_virtual else f", began {span.started_at.isoformat(timespec='seconds')}"
    reason = "" if span.reason is None else f"<br>{wrapped(span.reason)}"
    length = f"{what} {number(3600.0 * took_h)} s"
    return f"<b>{span.lane}, trial {span.trial}</b><br>{length}{began}{reason}"


def _events(report: ReportData, hours: Sequence[float]) -> Trace:
    return Trace(
        type="scatter",
        mode="markers",
        name="event",
        yaxis="y3",
        marker={"symbol": "triangle-down", "size": 11, "color": INK},
        x=hours,
        y=[_EVENTS for _ in hours],
        text=[
            f"<b>{plain(e.kind)}</b>{'' if e.trial is None else f' trial {e.trial}'}"
            f"<br>{wrapped(e.message)}"
            for e in report.events
        ],
        hovertemplate=f"%{{text}}{NO_HOVER_BOX}",
    )


def _layout(lanes: Sequence[str], hours: str, unit: str, *, has_growth: bool) -> dict[str, Json]:
    above: dict[str, Json] = {}
    if has_growth:
        share = {"domain": [0.68, 1], "title": {"text": "hypervolume<br>%"}, "rangemode": "tozero"}
        energy = {"domain": [0.36, 0.62], "title": {"text": f"least<br>{unit}"}}
        above = {"yaxis": share, "yaxis2": energy}
    return layout(
        barmode="overlay",
        bargap=0.35 if has_growth else 0.7,
        margin={"l": 96, "r": 14, "t": 30, "b": 44},
        xaxis={"title": {"text": hours}, "anchor": "y3", "rangemode": "tozero"},
        **above,
        yaxis3={
            "domain": [0, 0.3 if has_growth else 1],
            "categoryorder": "array",
            "categoryarray": list(reversed(lanes)),
            "showgrid": False,
        },
    )
