"""`tuner store`: check a store, back it up, rebuild it from the measurement log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.console import stderr_console, stdout_console
from tuner.commands.shared.options import Format, Output, StoreUrl
from tuner.commands.shared.output import print_json
from tuner.errors import OperatorNeededError

app = typer.Typer(name="store", no_args_is_help=True, help="Check, back up and rebuild a store.")


@app.command()
def check(store_url: StoreUrl = DEFAULT_STORE, output: Output = Format.TABLE) -> None:
    """Check the file, its tables, Optuna's beside ours, and the measurement logs.

    Exit code 5 if something is wrong. Example: tuner store check --format json
    """
    from tuner.api.stores import check_store
    from tuner.report.terminal.findings_table import findings_json, show_findings

    found = check_store(store_url)
    if output is Format.JSON:
        shown = findings_json(found)
        print_json({"sound": not shown["problems"], "findings": shown["findings"]})
    else:
        show_findings(stdout_console(), sorted(found, key=lambda finding: not finding.is_problem))
        if not any(finding.is_problem for finding in found):
            stdout_console().print("the store is sound", highlight=False)
    problems = sum(finding.is_problem for finding in found)
    if problems:
        raise OperatorNeededError(
            f"{problems} problems in the store {store_url}; `tuner store rebuild NEW.db` makes a "
            "new one from the measurement log"
        )


@app.command()
def backup(store_url: StoreUrl = DEFAULT_STORE) -> None:
    """Copy the store while it is in use; the last two backups are kept, or one if it is large.

    Example: tuner store backup --store results/tuner.db
    """
    from tuner.api.stores import back_up_store

    made = back_up_store(store_url)
    stderr_console().print(f"backed up to {made}", highlight=False, soft_wrap=True)


@app.command()
def rebuild(
    new: Annotated[Path, typer.Argument(help="The SQLite file to create; it must not exist.")],
    store_url: StoreUrl = DEFAULT_STORE,
) -> None:
    """Make a new store from the measurement logs of one that is damaged or lost.

    Example: tuner store rebuild new.db --store results/tuner.db
    """
    from tuner.api.stores import rebuild_store

    console = stderr_console()

    def note(message: str) -> None:
        console.print(message, highlight=False, soft_wrap=True)

    for made in rebuild_store(new, note, store_url):
        note(
            f"{made.study}: {made.trials} trials, {made.repeats} repeats"
            + (f", {made.damaged_lines} torn lines left out" if made.damaged_lines else "")
            + f"; go on with `tuner resume {made.study} --store {new}`"
        )
