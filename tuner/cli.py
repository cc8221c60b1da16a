"""Command line: says where the commands are, and maps errors to messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from tuner import __version__
from tuner.commands.on_demand import CommandsOnDemand
from tuner.commands.shared.output import ReaderGoneError
from tuner.commands.shared.settings_group import SettingsGroup
from tuner.errors import InterruptedBySignalError, TunerError, UsageError
from tuner.host.collector import collect_rarely, skip_last_collection

# In the order of the help; the `app` of each module registers its commands.
MODULES = {
    "run": "tuner.commands.run",
    "resume": "tuner.commands.run",
    "list": "tuner.commands.reading.studies",
    "show": "tuner.commands.reading.studies",
    "recommend": "tuner.commands.reading.studies",
    "export": "tuner.commands.reading.studies",
    "report": "tuner.commands.reading.report",
    "rename": "tuner.commands.editing",
    "delete": "tuner.commands.editing",
    "note": "tuner.commands.editing",
    "status": "tuner.commands.reading.status",
    "tasks": "tuner.commands.reading.tasks",
    "plan": "tuner.commands.plan",
    "measure": "tuner.commands.measure",
    "calibrate": "tuner.commands.calibrate",
    "doctor": "tuner.commands.doctor",
    "workload": "tuner.commands.workload",
    "compare": "tuner.commands.reading.compare",
    "gpu": "tuner.commands.gpu",
    "store": "tuner.commands.store",
}


class _Commands(SettingsGroup):
    """All commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes | {"commands": CommandsOnDemand(MODULES)})

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names alone, for which no command has to be built."""
        return list(MODULES)


app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,  # plain text fits into 80 columns, and takes half the time to start
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the vLLM configurations that use the least energy while meeting a latency SLO.",
    epilog=(
        "Every option may come from a variable (TUNER_RUN_SLO is --slo of run) or from "
        "~/.config/tuner/config.toml (slo in the table run); the command line comes first. "
        "Exit codes: 0 done, 2 usage, 3 preflight failed, 4 no feasible configuration, "
        "5 needs an operator, 130/143 interrupted."
    ),
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tuner {__version__}")
        raise typer.Exit


@app.callback()
def _tuner(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line; a known error becomes one sentence on stderr and an exit code."""
    collect_rarely()
    skip_last_collection()
    try:
        _require_text(sys.argv[1:])
        app()
    except ReaderGoneError:
        # not an error; the interpreter must not complain when it flushes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (TunerError, InterruptedBySignalError) as error:
        _end(error)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _end(UsageError(f"'{error.filename}' is too long for the name of a file; shorten it"))
    sys.exit(0)


def _require_text(words: Iterable[str]) -> None:
    """Raise `UsageError` for a word that no store, log or JSON could hold."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = word.encode(errors="surrogateescape").decode(errors="replace")
            raise UsageError(f"'{shown}' is not UTF-8; write it, or rename the file, so") from None


def _end(error: TunerError | InterruptedBySignalError) -> NoReturn:
    from tuner.host.plain_text import plain_text
    from tuner.host.redaction import redacted

    with suppress(OSError):  # its terminal was closed
        typer.echo(redacted(plain_text(f"tuner: {error}")), err=True)
    sys.exit(error.exit_code)
