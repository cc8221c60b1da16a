"""`tuner report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.console import stderr_console
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
    from tuner.api.studies import require_browser, write_pictures, write_report

    if png is not None:
        require_browser()  # fails before the report is made
    path = output or Path(f"{name.replace('/', '-')}.html")
    size = write_report(name, path, slo=slo, store=store_url)
    console = stderr_console()
    console.print(f"wrote {path} ({size / 1e6:.1f} MB)", highlight=False, markup=False)
    for picture in [] if png is None else write_pictures(path, png):
        console.print(f"wrote {picture}", highlight=False, markup=False)
