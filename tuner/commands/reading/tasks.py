"""`tuner tasks`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.console import stdout_console
from tuner.commands.shared.options import Format, Output, StoreUrl
from tuner.commands.shared.output import print_json


def tasks(
    model: Annotated[
        str | None, typer.Argument(help="Model, or the end of its name; default: the only one.")
    ] = None,
    mfu: Annotated[
        float,
        typer.Option(min=0.001, max=1.0, help="Share of the peak that the estimate assumes."),
    ] = 0.1,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Compare the tasks that a model was tuned for: energy per request, headroom, and an estimate.

    Uses the newest study of each workload on one GPU. It shows the measured energy beside an
    estimate from FLOPs.

    Example: tuner tasks Llama-3.1-8B-Instruct
    """
    from tuner.api.studies import task_tables
    from tuner.report.terminal.task_table import show_tasks, tasks_json

    tables = task_tables(model, mfu, store_url)
    if output is Format.JSON:
        print_json(tasks_json(tables))
    else:
        show_tasks(stdout_console(), tables)
