"""`tuner status`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.reading.short_lived import ShortLived
from tuner.commands.shared.completion import complete_study
from tuner.commands.shared.console import stdout_console
from tuner.commands.shared.options import Format, Output, StoreUrl
from tuner.commands.shared.output import print_json, store_option

app = typer.Typer()


@app.command(cls=ShortLived)
def status(
    name: Annotated[
        str | None,
        typer.Argument(
            help="The study's name (default: the newest).", autocompletion=complete_study
        ),
    ] = None,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Show, from another terminal, a study's progress, what runs now and the tuner that runs it.

    Example: watch --color tuner status
    """
    from tuner.api.studies import study_status
    from tuner.report.terminal.status_table import show_status, status_json

    found = study_status(name, store_url)
    if output is Format.JSON:
        print_json(status_json(found))
    else:
        show_status(stdout_console(), found, store_option(store_url))
