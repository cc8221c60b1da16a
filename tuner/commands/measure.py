"""`tuner measure`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner.commands.shared.console import stderr_console, stdout_console
from tuner.commands.shared.option_groups import with_option_groups
from tuner.commands.shared.options import Format, Output
from tuner.commands.shared.output import print_json
from tuner.commands.shared.spec_options import MeasureOptions

app = typer.Typer()


@app.command()
@with_option_groups
def measure(
    options: MeasureOptions,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KNOB=VALUE: a vLLM flag, VARIABLE, device or load knob."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Measure one configuration, once.

    Example: tuner measure --emulate H100-SXM --model Qwen/Qwen3-8B --set max_num_seqs=64
    """
    import tuner
    from tuner.report.terminal.measurement_table import measured_json, show_measured

    configuration = tuner.parse_settings(settings or [])
    spec = tuner.study_spec(options={**options.given(), "trials": 1})
    listener = tuner.NoteListener(stderr_console().print)
    measured = tuner.measure(configuration, spec, listener=listener)
    if output is Format.JSON:
        print_json(measured_json(measured))
    else:
        show_measured(stdout_console(), measured, spec.slos)
