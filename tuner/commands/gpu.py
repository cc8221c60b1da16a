"""`tuner gpu status` and `tuner gpu restore`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner.commands.shared.options import Format, Output
from tuner.commands.shared.output import print_json, stdout_console
from tuner.errors import OperatorNeededError

app = typer.Typer(no_args_is_help=True, help="Show and restore the GPUs' limits.")


@app.command("status")
def status(
    output: Output = Format.TABLE,
) -> None:
    """Show power limits and clocks: before the tuner changed them, now, and the default.

    Example: tuner gpu status --format json
    """
    from tuner.devices.leases.lease_book import LeaseBook
    from tuner.devices.open import isolated_limits
    from tuner.host.state_folder import state_folders
    from tuner.report.terminal.gpu_table import machine_status, show_status, status_json

    status = machine_status(isolated_limits(), *map(LeaseBook, state_folders()))
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
    from functools import partial

    from tuner.devices.leases.lease_book import LeaseBook
    from tuner.devices.limit_control import Access
    from tuner.devices.open import opened_limits
    from tuner.host.state_folder import state_folders
    from tuner.report.terminal.gpu_table import is_restored, restore_json, show_restore

    opener = partial(opened_limits, Access.SET)
    books = map(LeaseBook, state_folders())
    outcomes = [outcome for book in books for outcome in book.restore_all(opener, force=force)]
    if output is Format.JSON:
        print_json(restore_json(outcomes))
    else:
        show_restore(stdout_console(), outcomes)
    if not is_restored(outcomes):
        raise OperatorNeededError("not every GPU is as it was found; see above")
