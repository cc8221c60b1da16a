"""The Pareto front: energy against latency, the default and the recommended trial marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.analysis.confirmed_front import ConfirmedFront
from tuner.analysis.outcomes import has_lost_a_race, meets_slo, metric
from tuner.report.figures.figure import (
    BLUE,
    CARD,
    DOT,
    FAINT,
    GOOD,
    WARN,
    Figure,
    Json,
    Trace,
    beside,
    layout,
    plain,
    upright_line,
)
from tuner.report.figures.trial_points import Axes, axes_of, points, with_unit
from tuner.slo import Slo
from tuner.spec.stored import StoredSpec
from tuner.store.rows import TrialRow

_RIM = {"color": CARD, "width": 1.5}


def front_figure(confirmed: ConfirmedFront, best: int | None) -> Figure:
    """Return the trials over two metrics; `best` is the recommended one, None if there is none."""
    axes = axes_of(confirmed)
    on_front = {t.number for t in confirmed.front}
    searched = [
        t
        for t in confirmed.trials
        if t.number not in on_front and not t.baseline and t.number != best
    ]
    others = [t for t in confirmed.front if t.number != best and not t.baseline]
    stage = "confirmed front" if confirmed.is_confirmed else "front, unconfirmed"
    is_behind = (
        confirmed.is_confirmed
    )  # what was measured once leaves the front to what was repeated
    met = points(
        "SLO met", [t for t in searched if _met(confirmed, t)], axes, _met_marker(is_behind)
    )
    met["meta"]["has_knob_colours"] = True
    lost = [t for t in searched if has_lost_a_race(t)]
    missed = [t for t in searched if not _met(confirmed, t) and not has_lost_a_race(t)]
    traces = [
        points("SLO missed", missed, axes, _missed(is_behind)),
        *([points("ended early", lost, axes, _missed(is_behind))] if lost else []),
        met,
        *_line(confirmed, axes),
        points(stage, others, axes, _marker(13, GOOD, "circle"), has_bars=True),
        points(
            StoredSpec.of(confirmed.study).baseline_row,
            [t for t in confirmed.trials if t.baseline and t.number != best],
            axes,
            _marker(14, BLUE, "diamond"),
            has_bars=True,
        ),
        points(
            "recommended",
            [t for t in confirmed.trials if t.number == best],
            axes,
            _marker(20, GOOD, "star"),
            has_bars=True,
        ),
    ]
    x_range = near_range(confirmed, axes.x)
    for rank, trace in enumerate(reversed(traces), start=1):
        trace["legendrank"] = rank  # the answer first, though it is drawn last, on top
    return Figure(
        data=traces,
        layout=layout(
            xaxis=_axis(axes.x, x_range),
            yaxis=_axis(axes.y, near_range(confirmed, axes.y)),
            **_marks(confirmed.slos, axes, x_range),
        ),
    )


def near_range(confirmed: ConfirmedFront, name: str) -> list[float] | None:
    """Return the range of an axis that is seen first: the front, the default and the bounds.

    The front is what is confirmed, else all that met the SLOs. None for fewer than two values.
    """
    good = {
        number
        for number, known in confirmed.confirmations.items()
        if known.is_confirmed and confirmed.is_confirmed
    } or {t.number for t in confirmed.trials if _met(confirmed, t)}
    near = [t for t in confirmed.trials if t.baseline or t.number in good]
    values = [v for t in near if (v := metric(t, name)) is not None]
    values += [slo.bound for slo in confirmed.slos if slo.metric == name]
    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    pad = 0.12 * (high - low or high or 1.0)
    return [max(low - pad, 0.0 if low > 0.0 else low - pad), high + pad]


@dataclass(frozen=True, slots=True)
class Mark:
    """The bound of an SLO on one axis: a line and its note, as in `layout`."""

    line: Json
    note: Json


def upright_mark(slo: Slo) -> Mark:
    """Return the bound on the lower axis; the note's `xanchor` depends on the axis' range."""
    place = {"x": slo.bound, "yref": "paper", "y": 1, "xanchor": "right", "yanchor": "top"}
    return Mark(upright_line(slo.bound, WARN, "dash"), _note(slo) | place)


def level_mark(slo: Slo) -> Mark:
    """Return the bound on the upright axis."""
    line = {"color": WARN, "width": 1.5, "dash": "dash"}
    ends = {"y0": slo.bound, "y1": slo.bound, "xref": "paper", "x0": 0, "x1": 1}
    place = {"y": slo.bound, "xref": "paper", "x": 1, "xanchor": "right", "yanchor": "bottom"}
    return Mark({"type": "line", **ends, "line": line}, _note(slo) | place)


def _note(slo: Slo) -> dict[str, Json]:
    return {
        "text": plain(str(slo)),
        "showarrow": False,
        "font": {"color": WARN, "size": 12},
        "bgcolor": CARD,
    }


def _marks(
    slos: Sequence[Slo], axes: Axes, x_range: Sequence[float] | None
) -> dict[str, list[Json]]:
    """Return the bounds that lie on either axis."""
    upright = [upright_mark(slo) for slo in slos if slo.metric == axes.x]
    if x_range is not None:
        low, high = x_range
        upright = [
            Mark(m.line, m.note | {"xanchor": beside(m.note["x"], low, high)}) for m in upright
        ]
    level = [level_mark(slo) for slo in slos if slo.metric == axes.y != axes.x]
    marks = [*upright, *level]
    return {"shapes": [m.line for m in marks], "annotations": [m.note for m in marks]}


def _met(confirmed: ConfirmedFront, trial: TrialRow) -> bool:
    return bool(meets_slo(trial, confirmed.slos))


def _line(confirmed: ConfirmedFront, axes: Axes) -> list[Trace]:
    """Return the front as steps; over its own axes only."""
    if len(confirmed.front) < 2:
        return []
    return [
        Trace(
            type="scatter",
            mode="lines",
            meta={"x": axes.x, "y": axes.y, "is_line": True},
            customdata=[t.number for t in confirmed.front],
            line={"color": GOOD, "width": 2.5, "shape": "hv"},
            hoverinfo="skip",
            showlegend=False,
        )
    ]


def _axis(name: str, shown: list[float] | None) -> dict[str, Json]:
    axis: dict[str, Json] = {"title": {"text": with_unit(name)}}
    return axis if shown is None else axis | {"range": shown}


def _marker(size: float, colour: str, symbol: str) -> dict[str, Json]:
    return {"symbol": symbol, "size": size, "color": colour, "line": _RIM}


def _missed(is_behind: bool) -> dict[str, Json]:
    line = {"color": FAINT, "width": 1 if is_behind else 1.5}
    return {"symbol": "x-thin", "size": 5 if is_behind else 7, "line": line}


def _met_marker(is_behind: bool) -> dict[str, Json]:
    return {"size": 5 if is_behind else 7.5, "color": DOT, "opacity": 0.45 if is_behind else 0.85}
