"""`tuner report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tuner import DEFAULT_STORE
from tuner.commands.reading.short_lived import ShortLived
from tuner.commands.shared.console import stderr_console
from tuner.commands.shared.options import Name, Slos, StoreUrl

app = typer.Typer()

_PNG = "--png"


class PngWithoutFolder(ShortLived):
    """A command whose `--png` may stand without a folder: last, or before another option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--png` an empty value."""
        ends = [*args[1:], "-"]
        words = [
            f"{_PNG}=" if word == _PNG and after.startswith("-") else word
            for word, after in zip(args, ends, strict=False)
        ]
        return super().parse_args(ctx, words)


@app.command(cls=PngWithoutFolder)
def report(
    name: Name = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file (default: NAME.html beside the store)."),
    ] = None,
    png: Annotated[
        str | None,
        typer.Option(
            _PNG,
            help="Also write a PNG of each figure into this folder; without one, beside the report "
            "(needs Chromium or Chrome).",
            metavar="[FOLDER]",
        ),
    ] = None,
    slo: Slos = None,
    store_url: StoreUrl = DEFAULT_STORE,
) -> None:
    """Write a study as one HTML file that opens anywhere, without a network.

    Example: tuner report llama-3.1-8b-instruct-chat -o night.html
    """
    from tuner.api import studies

    if png is not None:
        studies.require_browser()  # fails before the report is made
    name = studies.named_study(name, store_url)
    path = output or studies.report_path(name, store_url)
    size = studies.write_report(name, path, slo=slo, store=store_url)
    console = stderr_console()
    console.print(f"wrote {path} ({size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
    if png is not None:
        folder = Path(png) if png else path.with_name(f"{path.stem}-figures")
        for picture in studies.write_pictures(path, folder):
            console.print(f"wrote {picture}", highlight=False, soft_wrap=True)
