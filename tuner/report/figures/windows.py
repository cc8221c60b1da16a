"""Inside the steady windows: power, clock and queue over time, and latency quantiles."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.analysis.report_data.window_curves import SHARES, Series, WindowCurves
from tuner.metrics import LATENCIES, latency_label
from tuner.report.figures.figure import (
    BLUE,
    GOOD,
    NO_HOVER_BOX,
    SOFT,
    WARN,
    Figure,
    Json,
    Trace,
    beside,
    layout,
    plain,
    upright_line,
)
from tuner.slo import Slo

_COLOURS = (BLUE, GOOD, WARN)
_MARGIN = {"l": 60, "r": 14, "t": 30, "b": 44}


def window_name(curves: WindowCurves) -> str:
    """Return why a window is shown, and of which trial it is."""
    return f"{curves.window.role}, trial {curves.window.trial}"


def power_figure(windows: Sequence[WindowCurves]) -> Figure:
    """Return power, SM clock where known, and requests running and waiting over time, s."""
    has_clock = any(w.sm_clock_mhz is not None for w in windows)
    clock: dict[str, Json] = {}
    if has_clock:
        clock = {"yaxis3": {"domain": [0.33, 0.57], "title": {"text": "MHz"}, "nticks": 5}}
    return Figure(
        data=[trace for k, w in enumerate(windows) for trace in _over_time(w, _colour(k))],
        layout=layout(
            shapes=[upright_line(0.0, SOFT, "dot", width=1)],
            margin=_MARGIN,
            xaxis={"title": {"text": "s"}, "anchor": "y2"},
            yaxis={
                "domain": [0.63 if has_clock else 0.45, 1],
                "title": {"text": "W"},
                "rangemode": "tozero",
            },
            yaxis2={
                "domain": [0, 0.27 if has_clock else 0.36],
                "title": {"text": "requests"},
                "rangemode": "tozero",
            },
            **clock,
        ),
    )


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _over_time(curves: WindowCurves, colour: str) -> list[Trace]:
    power = _trace(curves, curves.power_w, window_name(curves), "<b>%{y:.0f} W</b>")
    power["line"] = {"color": colour, "width": 1.6}
    traces = [power]
    if curves.sm_clock_mhz is not None:
        clock = _trace(curves, curves.sm_clock_mhz, "SM clock", "<b>%{y:.0f} MHz</b>", "y3")
        clock["line"] = {"color": colour, "width": 1.4}
        traces.append(clock)
    running = _trace(curves, curves.running, "running", "%{y:.0f} running", "y2")
    running["line"] = {"color": colour, "width": 1.4}
    waiting = _trace(curves, curves.waiting, "waiting", "%{y:.0f} waiting", "y2")
    waiting["line"] = {"color": colour, "width": 1.2, "dash": "dot"}
    return [*traces, running, waiting]


def _trace(
    curves: WindowCurves, series: Series, name: str, said: str, axis: str | None = None
) -> Trace:
    at = f"%{{x:.1f}} s<br>{plain(window_name(curves))}"
    trace = Trace(
        type="scatter",
        mode="lines",
        name=name,
        legendgroup=curves.window.role,
        x=series.times_s,
        y=series.values,
        hovertemplate=f"{at}<br>{said}{NO_HOVER_BOX}",
    )
    if axis is not None:
        trace["yaxis"] = axis
        trace["showlegend"] = False
    return trace


def latency_figures(windows: Sequence[WindowCurves], slos: Sequence[Slo]) -> dict[str, Figure]:
    """Return, for each latency that any window has, its share of requests by latency."""
    return {
        name: _latency_figure(name, windows, slos)
        for name in LATENCIES
        if any(name in w.quantiles_ms for w in windows)
    }


def _latency_figure(name: str, windows: Sequence[WindowCurves], slos: Sequence[Slo]) -> Figure:
    shares = [100.0 * share for share in SHARES]
    traces = [
        Trace(
            type="scatter",
            mode="lines",
            name=window_name(w),
            x=w.quantiles_ms.get(name, ()),
            y=shares,
            line={"color": _colour(k), "width": 2},
            hovertemplate=f"{plain(window_name(w))}<br>%{{y:.1f}} % within "
            f"<b>%{{x:.4g}} ms</b>{NO_HOVER_BOX}",
        )
        for k, w in enumerate(windows)
    ]
    most_ms = max(max(w.quantiles_ms[name]) for w in windows if name in w.quantiles_ms)
    bounds = [slo for slo in slos if slo.metric.endswith(f"_{name}")]
    return Figure(
        data=traces,
        layout=layout(
            shapes=[upright_line(slo.bound, WARN, "dash") for slo in bounds],
            annotations=[_note(slo, most_ms) for slo in bounds],
            margin=_MARGIN,
            xaxis={
                "title": {"text": f"{latency_label(name)} (ms)"},
                "rangemode": "tozero",
            },
            yaxis={"title": {"text": "% of requests"}, "range": [0, 101]},
        ),
    )


def _note(slo: Slo, most_ms: float) -> dict[str, Json]:
    return {
        "x": slo.bound,
        "yref": "paper",
        "y": 0,
        "text": plain(str(slo)),
        "showarrow": False,
        "xanchor": beside(slo.bound, 0.0, max(most_ms, slo.bound)),
        "yanchor": "bottom",
        "font": {"color": WARN, "size": 12},
    }
