"""`tuner calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.completion import complete_gpu, complete_study
from tuner.commands.shared.options import Format, Output, StoreUrl


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
    from tuner.study.calibrate_gpu import calibrate_gpu

    calibrate_gpu(studies or [], gpu, output_file, store_url, as_json=output is Format.JSON)
