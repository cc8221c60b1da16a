"""The page: its frame, styles, script, Plotly and the data, put together into one file."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from tuner.analysis.report_data.report_data import ReportData
from tuner.errors import PreflightError
from tuner.host.durable_files import replacing
from tuner.report.figures.contact_sheet import contact_sheet
from tuner.report.html.answer import answer, label_of
from tuner.report.html.comparison import comparison
from tuner.report.html.data import as_script, page_data
from tuner.report.html.provenance import events, provenance

FIGURES = ("front", "night", "power", "latency", "importance", "slices")


def page(report: ReportData) -> str:
    """Return the report as one HTML document that loads nothing."""
    label = label_of(report)
    return Template(_asset("page.html")).substitute(
        title=escape(report.study.name),
        label=f'<span class="badge">{escape(label)}</span>' if label else "",
        answer=answer(report),
        comparison=comparison(report),
        pictures=contact_sheet(report),
        events=events(report),
        provenance=provenance(report),
        style=_asset("page.css"),
        script=_asset("page.js"),
        plotly=_asset("plotly/plotly-basic.min.js"),
        data=as_script(page_data(report)),
    )


def write_page(report: ReportData, path: Path) -> int:
    """Write the report, whole or not at all; return its size in bytes.

    Raises `PreflightError` if the file cannot be written.
    """
    return write_text(page(report), path)


def write_text(text: str, path: Path) -> int:
    """Write a page, whole or not at all; return its size in bytes. Raises `PreflightError`."""
    encoded = text.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            new.write(encoded)
    except OSError as error:
        raise PreflightError(
            f"cannot write '{path}' ({error.strerror or error}); name another file with -o"
        ) from None
    return len(encoded)


def _asset(name: str) -> str:
    return files("tuner.report.html").joinpath(name).read_text(encoding="utf-8")
