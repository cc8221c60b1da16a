"""`tuner store`: check a store, back it up, rebuild it from the measurement log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.options import Format, Output, StoreUrl
from tuner.commands.shared.output import print_json, stdout_console
from tuner.errors import OperatorNeededError, UsageError

app = typer.Typer(no_args_is_help=True, help="Check, back up and rebuild a store.")


@app.command()
def check(store_url: StoreUrl = DEFAULT_STORE, output: Output = Format.TABLE) -> None:
    """Check the file, its tables, Optuna's beside ours, and the measurement logs.

    Exit code 5 if something is wrong. Example: tuner store check --format json
    """
    from tuner.host.state_folder import state_folder
    from tuner.report.terminal.findings_table import findings_json, show_findings
    from tuner.store.store import Store, existing_file
    from tuner.store.upkeep.checks import check_file, check_studies

    path = existing_file(store_url)
    found = [] if path is None else check_file(path)
    if not any(finding.is_problem for finding in found):
        with Store.open(store_url, create=False) as store:
            found += check_studies(store, state_folder())
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
    """Copy the store while it is in use; the last two backups are kept.

    Example: tuner store backup --store results/tuner.db
    """
    from rich.console import Console

    from tuner.store.store import existing_file
    from tuner.store.upkeep.backup import back_up

    path = existing_file(store_url)
    if path is None:
        raise UsageError("back up a PostgreSQL store with pg_dump")
    made = back_up(path)
    Console(stderr=True).print(f"backed up to {made}", highlight=False, soft_wrap=True)


@app.command()
def rebuild(
    new: Annotated[Path, typer.Argument(help="The SQLite file to create; it must not exist.")],
    store_url: StoreUrl = DEFAULT_STORE,
) -> None:
    """Make a new store from the measurement logs of one that is damaged or lost.

    Example: tuner store rebuild new.db --store results/tuner.db
    """
    from rich.console import Console

    from tuner.host.state_folder import state_folder
    from tuner.store.address import parse_address
    from tuner.store.log.measurement_log import log_folder_of
    from tuner.study.durability.rebuild import rebuild as rebuild_store

    console = Console(stderr=True)

    def note(message: str) -> None:
        console.print(message, highlight=False, soft_wrap=True)

    folder = log_folder_of(parse_address(store_url), state_folder())
    for made in rebuild_store(folder, new, note):
        note(
            f"{made.study}: {made.trials} trials, {made.repeats} repeats"
            + (f", {made.damaged_lines} torn lines left out" if made.damaged_lines else "")
            + f"; go on with `tuner resume {made.study} --store {new}`"
        )
