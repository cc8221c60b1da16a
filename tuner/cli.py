"""The command line: which commands there are, and what an error becomes."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from tuner.commands import calibrate, doctor, gpu, measure, read, report, run, workload
from tuner.errors import TunerError
from tuner.interruption import InterruptedBySignalError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the vLLM configurations that use the least energy while meeting a latency SLO.",
    epilog=(
        "Exit codes: 0 done, 2 usage, 3 preflight failed, 4 no feasible configuration, "
        "5 needs an operator, 130/143 interrupted."
    ),
)
app.command()(run.run)
app.command()(run.resume)
app.command("list")(read.list_all)
app.command()(read.show)
app.command("recommend")(read.recommend_one)
app.command()(read.export)
app.command()(report.report)
app.command()(measure.measure)
app.command()(calibrate.calibrate)
app.command()(doctor.doctor)
app.add_typer(workload.app, name="workload")
app.add_typer(gpu.app, name="gpu")


def main() -> NoReturn:
    """Run the command line; every known error is one sentence on stderr and its exit code."""
    try:
        app()
    except (TunerError, InterruptedBySignalError) as error:
        typer.echo(f"tuner: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
