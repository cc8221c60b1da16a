"""`tuner calibrate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.completion import complete_gpu, complete_study
from tuner.commands.shared.console import stdout_console
from tuner.commands.shared.options import Format, Output, StoreUrl
from tuner.commands.shared.output import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.api.machine import CalibratedGpu

app = typer.Typer()


@app.command()
def calibrate(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            help="Studies of real runs; without one, all in the store.",
            autocompletion=complete_study,
        ),
    ] = None,
    gpu: Annotated[
        str,
        typer.Option(
            help="The emulated GPU to correct: a name or a file.", autocompletion=complete_gpu
        ),
    ] = "H100-SXM",
    output_file: Annotated[
        Path, typer.Option("--output", "-o", help="New GPU file for --emulate.")
    ] = Path("calibrated.yaml"),
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Correct an emulated GPU by real measurements in the store, and say how wrong it was.

    Example: tuner calibrate my-study --gpu H100-SXM -o my-h100.yaml
    """
    from tuner.api import machine

    found = machine.calibrate(studies or [], gpu, output_file, store_url)
    if output is Format.JSON:
        print_json(_as_json(found))
    else:
        _show(stdout_console(), found)


def _as_json(found: CalibratedGpu) -> dict[str, object]:
    return {
        "gpu_file": str(found.file),
        "measurements": found.measurements,
        "multipliers": asdict(found.result.multipliers),
        "mean_absolute_error": {
            metric: {"before": before, "after": after, "held_out": held_out}
            for metric, before, after, held_out in found.errors()
        },
    }


def _show(console: Console, found: CalibratedGpu) -> None:
    from rich.table import Table

    title = f"mean error, {found.measurements} trials"
    errors = Table("metric", "before", "after", "held out", title=title)
    for metric, *shares in found.errors():
        errors.add_row(metric, *(f"{100 * share:.1f} %" for share in shares))
    console.print(errors)
    for name, value in asdict(found.result.multipliers).items():
        console.print(f"{name:>14} x {value:.3f}")
    console.print(
        f"'held out': each trial predicted without itself. Use it: --emulate {found.file}"
    )
