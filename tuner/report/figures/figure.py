"""Plotly figures as typed JSON: traces, layouts, and the look that all of them share.

A colour is the name of one of the page's, such as `--good`: the page follows the reader's theme.
`resolved` puts the values of the light theme in their place, for a figure outside the page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeAlias, TypedDict

Json: TypeAlias = Any  # as plotly.js reads it

GOOD, WARN, BAD, BLUE = "--good", "--warn", "--bad", "--blue"
INK, SOFT, LINE, CARD, DOT, FAINT = "--ink", "--soft", "--line", "--card", "--dot", "--faint"
LIGHT: Mapping[str, str] = {
    GOOD: "#0a7d55",
    WARN: "#a85b00",
    BAD: "#b3261e",
    BLUE: "#2459c4",
    INK: "#17201c",
    SOFT: "#57635d",
    LINE: "#dfe4e0",
    CARD: "#ffffff",
    DOT: "#8fa39a",
    FAINT: "#b9c4be",
}
NO_HOVER_BOX = "<extra></extra>"  # Plotly's own box beside a hover text


class Trace(TypedDict, total=False):
    """One trace. `customdata` are trial numbers, by which the page filters and fills points.

    `meta` is for the page: the metric or knob of each axis, whether the points have error bars.
    """

    type: str
    mode: str
    name: str
    meta: Json
    x: Sequence[Json]
    y: Sequence[Json]
    base: Sequence[float]
    text: Sequence[str]
    customdata: Sequence[int]
    marker: Json
    line: Json
    error_x: Json
    error_y: Json
    xaxis: str
    yaxis: str
    orientation: str
    legendgroup: str
    showlegend: bool
    connectgaps: bool
    hoverinfo: str
    hovertemplate: str
    textposition: str


class Figure(TypedDict):
    """One figure, as `plotly.graph_objects.Figure(figure)` and `Plotly.react` take it."""

    data: list[Trace]
    layout: dict[str, Json]


def layout(**given: Json) -> dict[str, Json]:
    """Return the shared layout with `given` over it; axes and their titles are completed."""
    made: dict[str, Json] = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "family": "system-ui, sans-serif", "size": 13},
        "margin": {"l": 56, "r": 14, "t": 10, "b": 44},
        "hovermode": "closest",
        "dragmode": "zoom",
        "hoverlabel": {
            "bgcolor": CARD,
            "bordercolor": LINE,
            "font": {"color": INK, "size": 12.5},
            "align": "left",
        },
        "legend": {
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
            "x": 0,
            "font": {"size": 12.5},
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": FAINT, "activecolor": INK},
    }
    made |= given
    for name in [n for n in made if n.startswith(("xaxis", "yaxis"))]:
        made[name] = _axis(made[name])
    return made


def _axis(given: Mapping[str, Json]) -> dict[str, Json]:
    axis = {
        "gridcolor": LINE,
        "zeroline": False,
        "linecolor": LINE,
        "ticks": "",
        "automargin": True,
        **given,
    }
    if "title" in axis:
        axis["title"] = {"font": {"size": 13}, **axis["title"]}
    return axis


def upright_line(x: float, colour: str, dash: str, width: float = 1.5) -> dict[str, Json]:
    """Return a line over the whole height at `x`."""
    line = {"color": colour, "width": width, "dash": dash}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def beside(bound: float, low: float, high: float) -> str:
    """Return on which side of an upright line its note has room."""
    return "left" if bound < (low + high) / 2.0 else "right"


def plain(text: str) -> str:
    """Return text in which Plotly finds no markup."""
    return escape(text, quote=False)


def wrapped(text: str) -> str:
    """Return text in lines of at most 60 characters, without markup of its own."""
    return "<br>".join(plain(line) for line in textwrap.wrap(text, 60))


def resolved(value: Json) -> Json:
    """Return a figure, or a part of one, with the colours of the light theme."""
    if isinstance(value, str):
        return LIGHT.get(value, value)
    if isinstance(value, Mapping):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(item) for item in value]
    return value
