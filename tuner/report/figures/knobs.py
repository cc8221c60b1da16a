"""Which knobs matter: their share of the variance, and each of them against the energy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tuner.analysis.confirmed_front import ConfirmedFront
from tuner.analysis.outcomes import meets_slo, metric
from tuner.configuration import Value
from tuner.report.figures.figure import (
    BLUE,
    FAINT,
    GOOD,
    NO_HOVER_BOX,
    Figure,
    Json,
    Trace,
    layout,
    plain,
)
from tuner.report.figures.front import near_range
from tuner.report.labels import metric_label
from tuner.store.rows import TrialRow

_WIDE = 20.0  # a knob whose values span more than this ratio has a logarithmic axis
_MOST_TICKS = 12


def importance_figure(shares: Mapping[str, Mapping[str, float]], knobs: Sequence[str]) -> Figure:
    """Return bars of `shares[metric][knob]`, the share of the variance, for up to two metrics."""
    upwards = list(reversed(knobs))
    colours = dict(zip(shares, (GOOD, BLUE), strict=False))
    return Figure(
        data=[
            Trace(
                type="bar",
                orientation="h",
                name=metric_label(name),
                y=upwards,
                x=[100.0 * shares[name][k] if k in shares[name] else None for k in upwards],
                marker={"color": colours.get(name, GOOD)},
                hovertemplate="%{y}<br>%{x:.0f} % of the variance of "
                f"{plain(metric_label(name))}{NO_HOVER_BOX}",
            )
            for name in reversed(list(shares))
        ],
        layout=layout(
            bargap=0.3,
            margin={"l": 10, "r": 14, "t": 30, "b": 44},
            legend={
                "orientation": "h",
                "y": 1.02,
                "yanchor": "bottom",
                "x": 0,
                "traceorder": "reversed",
            },
            xaxis={"title": {"text": "% of the variance"}, "rangemode": "tozero"},
            yaxis={"automargin": True},
        ),
    )


def slices_figure(
    confirmed: ConfirmedFront,
    knobs: Sequence[str],
    name: str,
    *,
    columns: int,
    is_narrow: bool = False,
) -> Figure:
    """Return a small plot of metric `name` over each knob, in a grid of `columns`."""
    of = [t for t in confirmed.trials if metric(t, name) is not None]
    by_met = {
        met: [t for t in of if bool(meets_slo(t, confirmed.slos)) is met] for met in (False, True)
    }
    traces = [trace for k, knob in enumerate(knobs) for trace in _pair(by_met, k, knob, name)]
    return Figure(
        data=traces,
        layout=slices_layout(confirmed, knobs, name, columns=columns, is_narrow=is_narrow),
    )


def _pair(
    by_met: Mapping[bool, Sequence[TrialRow]], number: int, knob: str, name: str
) -> list[Trace]:
    """Return the trials that miss the SLO and those that meet it, of which the knob was set."""
    axis = _suffix(number)
    markers = {
        False: {"symbol": "x-thin", "size": 5, "line": {"color": FAINT, "width": 1.3}},
        True: {"size": 6, "color": GOOD, "opacity": 0.75},
    }
    return [
        Trace(
            type="scatter",
            mode="markers",
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
            meta={"knob": knob, "y": name},
            customdata=[t.number for t in by_met[met] if _value(t, knob) is not None],
            marker=marker,
            hovertemplate=f"%{{text}}{NO_HOVER_BOX}",
        )
        for met, marker in markers.items()
    ]


def slices_layout(
    confirmed: ConfirmedFront,
    knobs: Sequence[str],
    name: str,
    *,
    columns: int,
    is_narrow: bool,
) -> dict[str, Json]:
    """Return the grid of the small plots, for a screen of so many columns."""
    shown = near_range(confirmed, name)
    axes: dict[str, Json] = {}
    notes: list[Json] = []
    for number, knob in enumerate(knobs):
        axis = _suffix(number)
        values = [_value(t, knob) for t in confirmed.trials]
        axes[f"xaxis{axis}"] = _knob_axis(values, is_narrow=is_narrow)
        axes[f"yaxis{axis}"] = {"nticks": 5} | ({} if shown is None else {"range": shown})
        notes.append(_heading(knob, axis, is_narrow=is_narrow))
    return layout(
        grid={
            "rows": max(1, math.ceil(len(knobs) / columns)),
            "columns": max(1, min(columns, len(knobs))),
            "pattern": "independent",
            "xgap": 0.24 if is_narrow else 0.14,
            "ygap": 0.4,
        },
        showlegend=False,
        annotations=notes,
        margin={"l": 56, "r": 10, "t": 24, "b": 30},
        **axes,
    )


def _suffix(number: int) -> str:
    return str(number + 1) if number else ""


def _value(trial: TrialRow, knob: str) -> Value | None:
    return trial.configuration.knobs().get(knob)


def _knob_axis(values: Sequence[Value | None], *, is_narrow: bool) -> dict[str, Json]:
    numbers = sorted({v for v in values if isinstance(v, int | float) and not isinstance(v, bool)})
    axis: dict[str, Json] = {"nticks": 3 if is_narrow else 6}
    if not numbers or numbers[0] <= 0 or numbers[-1] / numbers[0] <= _WIDE:
        return axis
    axis["type"] = "log"
    if len(numbers) <= _MOST_TICKS:
        axis["tickvals"] = numbers
        axis["ticktext"] = ["" if is_narrow and i % 2 else str(v) for i, v in enumerate(numbers)]
        axis["tickangle"] = -45 if len(numbers) > 6 else 0
    return axis


def _heading(knob: str, axis: str, *, is_narrow: bool) -> dict[str, Json]:
    return {
        "text": f"<b>{plain(knob)}</b>",
        "xref": f"x{axis} domain",
        "yref": f"y{axis} domain",
        "x": -0.3 if is_narrow else 0,
        "y": 1.02,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 10.5 if is_narrow else 12.5},
    }
