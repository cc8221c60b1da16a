"""Trials as points of a scatter plot: their values, hover texts and 95 % error bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.analysis.confirmed_front import ConfirmedFront
from tuner.analysis.outcomes import has_lost_a_race, kind_of_study, meets_slo, metric
from tuner.metrics import METRICS
from tuner.report.figures.figure import NO_HOVER_BOX, Figure, Json, Trace, plain, wrapped
from tuner.report.labels import metric_label, number
from tuner.spec.objective import Objective
from tuner.store.rows import TrialRow, TrialState

# error bars, to which the page or `filled` adds the ends
_BARS: Json = {"type": "data", "symmetric": False, "thickness": 1.3, "width": 3}


@dataclass(frozen=True, slots=True)
class Axes:
    """The metrics that the front is drawn over."""

    x: str
    y: str


def axes_of(confirmed: ConfirmedFront) -> Axes:
    """Return two objectives, or one and the first SLO's metric; energy is upright."""
    kind = kind_of_study(confirmed.study)
    objectives = [Objective.parse(text).metric for text in confirmed.study.objectives]
    others = [
        *(name for name in objectives if name != kind.energy),
        *(slo.metric for slo in confirmed.slos),
        kind.columns[0],
    ]
    return Axes(x=others[0], y=kind.energy if kind.energy in objectives else objectives[0])


def shown_metrics(confirmed: ConfirmedFront) -> list[str]:
    """Return the metrics that a hover text and the table of trials show."""
    axes = axes_of(confirmed)
    names = [
        axes.y,
        *(slo.metric for slo in confirmed.slos),
        axes.x,
        kind_of_study(confirmed.study).throughput,
        "mean_power_w",
    ]
    return [n for n in dict.fromkeys(names) if has_metric(confirmed, n)]


def has_metric(confirmed: ConfirmedFront, name: str) -> bool:
    """Say whether any trial has the metric."""
    return any(metric(t, name) is not None for t in confirmed.trials)


def with_unit(name: str) -> str:
    """Return a metric's label with its unit."""
    return f"{metric_label(name)} ({METRICS[name].unit})"


def outcome_of(confirmed: ConfirmedFront, trial: TrialRow) -> str:
    """Return how a trial ended, in two words."""
    if trial.state is TrialState.RUNNING:
        return "running"
    if trial.measurement is None:
        return "failed"
    if has_lost_a_race(trial):
        return "ended early"
    return "SLO met" if meets_slo(trial, confirmed.slos) else "SLO missed"


def hover_texts(confirmed: ConfirmedFront) -> dict[int, str]:
    """Return what is said of each trial when it is pointed at, by its number."""
    names = shown_metrics(confirmed)
    return {t.number: _hover_text(confirmed, t, names) for t in confirmed.trials}


def _hover_text(confirmed: ConfirmedFront, trial: TrialRow, names: Sequence[str]) -> str:
    default = " (default)" if trial.baseline else ""
    lines = [f"<b>trial {trial.number}</b>{default} · {outcome_of(confirmed, trial)}"]
    known = confirmed.confirmations.get(trial.number)
    if known is not None and known.is_confirmed:
        lines.append(f"confirmed by {known.repeats} measurements")
    lines += [
        f"{plain(with_unit(name))}: <b>{number(value)}</b>"
        for name in names
        if (value := metric(trial, name)) is not None
    ]
    knobs = [plain(f"{name}={value}") for name, value in trial.configuration.knobs().items()]
    lines += ["", *(knobs or ["all defaults"])]
    if trial.failure is not None:
        lines += ["", wrapped(trial.failure.reason)]
    return "<br>".join(lines)


def points(
    name: str, trials: Sequence[TrialRow], axes: Axes, marker: Json, *, has_bars: bool = False
) -> Trace:
    """Return a trace of trials without their values; `filled` adds them."""
    return Trace(
        type="scatter",
        mode="markers",
        name=name,
        marker=marker,
        meta={"x": axes.x, "y": axes.y} | ({"bars": _BARS} if has_bars else {}),
        customdata=[t.number for t in trials],
        hovertemplate=f"%{{text}}{NO_HOVER_BOX}",
    )


def filled(figure: Figure, confirmed: ConfirmedFront) -> Figure:
    """Return the figure with the values, texts and error bars of its points; the page does so too.

    A trace of trials says in `meta` of which metric (`x`, `y`) or knob (`knob`) they are.
    """
    rows = {t.number: t for t in confirmed.trials}
    texts = hover_texts(confirmed)
    return Figure(
        data=[_filled(trace, rows, texts, confirmed) for trace in figure["data"]],
        layout=figure["layout"],
    )


def _filled(
    trace: Trace, rows: Mapping[int, TrialRow], texts: Mapping[int, str], confirmed: ConfirmedFront
) -> Trace:
    meta = trace.get("meta")
    if meta is None:
        return trace
    placed = [
        (x, y, trial)
        for trial in (rows[number_] for number_ in trace["customdata"])
        if (x := _across(trial, meta)) is not None and (y := metric(trial, meta["y"])) is not None
    ]
    if meta.get("is_line"):
        placed.sort(key=lambda point: point[0])
    made, trials = trace.copy(), [trial for _, _, trial in placed]
    made["x"], made["y"] = [x for x, _, _ in placed], [y for _, y, _ in placed]
    made["customdata"] = [t.number for t in trials]
    made["text"] = [texts[t.number] for t in trials]
    if "name" in trace:
        made["name"] = f"{trace['name']} ({len(trials)})"
    if "bars" in meta:
        made["error_x"] = _bars(trials, meta["x"], confirmed)
        made["error_y"] = _bars(trials, meta["y"], confirmed)
    return made


def _across(trial: TrialRow, meta: Json) -> Json:
    """Return where a trial lies on the lower axis: a metric, or a knob's value."""
    if "knob" not in meta:
        return metric(trial, meta["x"])
    value = trial.configuration.knobs().get(meta["knob"])
    return str(value).lower() if isinstance(value, bool) else value


def _bars(trials: Sequence[TrialRow], name: str, confirmed: ConfirmedFront) -> Json:
    """Return the 95 % intervals of confirmed trials as error bars."""
    above, below = [], []
    for trial in trials:
        known = confirmed.confirmations.get(trial.number)
        estimate = None if known is None or not known.is_confirmed else known.estimates.get(name)
        ends, value = None if estimate is None else estimate.interval, metric(trial, name) or 0.0
        above.append(0.0 if ends is None else ends.high - value)
        below.append(0.0 if ends is None else value - ends.low)
    return {**_BARS, "array": above, "arrayminus": below}
