"""`tuner gpu status` and `tuner gpu restore`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner.commands.shared.console import stdout_console
from tuner.commands.shared.options import Format, Output
from tuner.commands.shared.output import print_json
from tuner.errors import OperatorNeededError

app = typer.Typer(name="gpu", no_args_is_help=True, help="Show and restore the GPUs' limits.")


@app.command("status")
def status(
    output: Output = Format.TABLE,
) -> None:
    """Show power limits and clocks: before the tuner changed them, now, and the default.

    Example: tuner gpu status --format json
    """
    from tuner.api.machine import gpu_status
    from tuner.report.terminal.gpu_table import show_status, status_json

    status = gpu_status()
    if output is Format.JSON:
        print_json(status_json(status))
    else:
        show_status(stdout_console(), status)


@app.command("restore")
def restore(
    force: Annotated[
        bool, typer.Option("--force", help="Also take GPUs away from runs that are alive.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Restore settings that a crash left changed, to their values before the run.

    Exit code 5 if a GPU is not as it was found. Example: sudo tuner gpu restore
    """
    from tuner.api.machine import restore_gpus
    from tuner.report.terminal.gpu_table import is_restored, restore_json, show_restore

    outcomes = restore_gpus(force=force)
    if output is Format.JSON:
        print_json(restore_json(outcomes))
    else:
        show_restore(stdout_console(), outcomes)
    if not is_restored(outcomes):
        raise OperatorNeededError("not every GPU is as it was found; see above")
