"""Plots of a study as Plotly figures, those of the HTML report: `tuner.plot.front(study)`.

`study` is the result of `tuner.load_study`. Each function raises `PreflightError` if plotly is not
installed; it is in the extra `plot`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.errors import PreflightError, UsageError, unknown_name
from tuner.report.figures.figure import Figure, resolved

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from tuner.report.study_results import StudyResults


def front(study: StudyResults) -> go.Figure:
    """Return energy against latency: the front, the default and the recommended trial."""
    from tuner.report.figures.front import front_figure
    from tuner.report.figures.trial_points import filled

    report = study.report_data()
    best = None if report.recommendation is None else report.recommendation.best.number
    return _drawn(filled(front_figure(report.confirmed, best), report.confirmed))


def timeline(study: StudyResults) -> go.Figure:
    """Return hypervolume and least energy over time, above launches and measurements."""
    from tuner.report.figures.night import night_figure

    return _drawn(night_figure(study.report_data()))


def power(study: StudyResults) -> go.Figure:
    """Return power, SM clock and requests over time in the default's and the best windows."""
    from tuner.analysis.report_data.window_curves import window_curves
    from tuner.report.figures.windows import power_figure

    return _drawn(power_figure([window_curves(w) for w in study.report_data().windows]))


def latency(study: StudyResults, name: str = "tpot_ms") -> go.Figure:
    """Return the share of requests within each latency; `name` is one of `LATENCIES`.

    Raises `UsageError` if no stored window has that latency.
    """
    from tuner.analysis.report_data.window_curves import window_curves
    from tuner.report.figures.windows import latency_figures

    report = study.report_data()
    windows = [window_curves(w) for w in report.windows]
    figures = latency_figures(windows, report.confirmed.slos)
    if name not in figures:
        raise UsageError(unknown_name("latency", name, figures))
    return _drawn(figures[name])


def importance(study: StudyResults) -> go.Figure:
    """Return the share of the variance of energy and latency that each knob alone explains."""
    from tuner.report.figures.knobs import importance_figure
    from tuner.report.html.data import knob_shares, sliced_knobs

    report = study.report_data()
    return _drawn(importance_figure(knob_shares(report), sliced_knobs(report)))


def slices(study: StudyResults, columns: int = 3) -> go.Figure:
    """Return the energy over each knob that matters, a small plot each."""
    from tuner.report.figures.knobs import slices_figure
    from tuner.report.figures.trial_points import axes_of, filled
    from tuner.report.html.data import sliced_knobs

    report = study.report_data()
    name = axes_of(report.confirmed).y
    figure = slices_figure(report.confirmed, sliced_knobs(report), name, columns=columns)
    return _drawn(filled(figure, report.confirmed))


def _drawn(figure: Figure) -> go.Figure:
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise PreflightError("plots need plotly; run `pip install plotly`") from None
    return go.Figure(resolved(figure))
