"""`tuner tasks`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.reading.short_lived import ShortLived
from tuner.commands.shared.console import stdout_console
from tuner.commands.shared.options import Format, Output, StoreUrl
from tuner.commands.shared.output import print_json
from tuner.errors import UsageError

app = typer.Typer()


@app.command(cls=ShortLived)
def tasks(
    model: Annotated[
        str | None, typer.Argument(help="Model, or the end of its name; default: the only one.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="A GPU's name: its tasks, whatever model each was tuned for."),
    ] = None,
    mfu: Annotated[
        float,
        typer.Option(min=0.001, max=1.0, help="Share of the peak that the estimate assumes."),
    ] = 0.1,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Compare the tasks that a model was tuned for: energy per request, saving, and an estimate.

    Uses the newest study of each workload on one GPU. It shows the measured energy beside an
    estimate from FLOPs. With `--gpu` it shows chat, code, image, video and reasoning on one GPU,
    each by its own model.

    Example: tuner tasks Llama-3.1-8B-Instruct
    """
    from tuner.api.studies import gpu_tasks, task_tables
    from tuner.report.terminal.task_table import (
        gpu_tasks_json,
        show_gpu_tasks,
        show_tasks,
        tasks_json,
    )

    if gpu is not None:
        if model is not None:
            raise UsageError("give a model or --gpu: with --gpu each task has its own model")
        found = gpu_tasks(gpu, store_url)
        if output is Format.JSON:
            print_json(gpu_tasks_json(found))
        else:
            show_gpu_tasks(stdout_console(), found)
        return
    tables = task_tables(model, mfu, store_url)
    if output is Format.JSON:
        print_json(tasks_json(tables))
    else:
        show_tasks(stdout_console(), tables)
