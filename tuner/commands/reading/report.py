"""`tuner report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.options import Name, Slos, StoreUrl


def report(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file (default: NAME.html).")
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            help="Also write a PNG of each figure into this folder (needs Chromium or Chrome)."
        ),
    ] = None,
    slo: Slos = None,
    store_url: StoreUrl = DEFAULT_STORE,
) -> None:
    """Write a study as one HTML file that opens anywhere, without a network.

    Example: tuner report llama-3.1-8b-instruct-chat -o night.html
    """
    from rich.console import Console

    from tuner.analysis.report_data.report_data import read_report_data
    from tuner.report.html.page import write_page
    from tuner.report.html.png import browser_path, write_pictures
    from tuner.slo import Slo
    from tuner.store import Store

    if png is not None:
        browser_path()  # fails before the report is made
    bounds = [Slo.parse(text) for text in slo] if slo else None
    with Store.open(store_url, create=False) as store:
        report_data = read_report_data(store, name, bounds)
    path = output or Path(f"{name.replace('/', '-')}.html")
    size = write_page(report_data, path)
    console = Console(stderr=True)
    console.print(f"wrote {path} ({size / 1e6:.1f} MB)", highlight=False, markup=False)
    for picture in [] if png is None else write_pictures(path, png):
        console.print(f"wrote {picture}", highlight=False, markup=False)
