"""Command line: registers the commands and maps errors to messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from tuner import __version__
from tuner.commands import calibrate, doctor, editing, gpu, measure, plan, run, store, workload
from tuner.commands.reading import compare, report, status, studies, tasks
from tuner.commands.reading.short_lived import ShortLived
from tuner.commands.shared.help_sections import RunHelp
from tuner.commands.shared.output import ReaderGoneError
from tuner.commands.shared.settings_group import SettingsGroup
from tuner.errors import InterruptedBySignalError, TunerError, UsageError
from tuner.host.collector import collect_rarely, skip_last_collection

app = typer.Typer(
    cls=SettingsGroup,
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
app.command(cls=RunHelp)(run.run)
app.command(cls=RunHelp)(run.resume)
app.command("list", cls=ShortLived)(studies.list_all)
app.command(cls=ShortLived)(studies.show)
app.command("recommend", cls=ShortLived)(studies.recommend_one)
app.command(cls=ShortLived)(studies.export)
app.command(cls=report.PngWithoutFolder)(report.report)
app.command()(editing.rename)
app.command()(editing.delete)
app.command()(editing.note)
app.command(cls=ShortLived)(status.status)
app.command(cls=ShortLived)(tasks.tasks)
app.command()(plan.plan)
app.command()(measure.measure)
app.command()(calibrate.calibrate)
app.command()(doctor.doctor)
app.add_typer(workload.app, name="workload")
app.add_typer(compare.app, name="compare")
app.add_typer(gpu.app, name="gpu")
app.add_typer(store.app, name="store")


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


def _end(error: TunerError | InterruptedBySignalError) -> NoReturn:
    from tuner.host.plain_text import plain_text
    from tuner.host.redaction import redacted

    with suppress(OSError):  # its terminal was closed
        typer.echo(redacted(plain_text(f"tuner: {error}")), err=True)
    sys.exit(error.exit_code)
