"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tuner.commands.shared.completion import complete_gpu, complete_study


class Format(StrEnum):
    """Result formats."""

    TABLE = "table"
    JSON = "json"


StoreUrl = Annotated[
    str,
    typer.Option("--store", envvar="TUNER_STORE", help="SQLite file or database URL."),
]
Name = Annotated[
    str,
    typer.Argument(help="The study's name (see `tuner list`).", autocompletion=complete_study),
]
Output = Annotated[Format, typer.Option("--format", help="Form of the result.")]
Slos = Annotated[
    list[str] | None,
    typer.Option("--slo", help="Bound on a metric, e.g. 'p99_tpot_ms<=50'; may be repeated."),
]
RequestRate = Annotated[
    str | None,
    typer.Option(
        help="Open loop: requests/s, or e.g. 0.7x, a share of what the default configuration "
        "sustains under the SLO (searched first)."
    ),
]
Concurrency = Annotated[int | None, typer.Option(help="Closed loop: requests under way.")]
BaseUrl = Annotated[str | None, typer.Option(help="Measure a server that is already running.")]
Vllm = Annotated[str | None, typer.Option(envvar="TUNER_VLLM", help="The vllm executable.")]
WindowSeconds = Annotated[
    float | None, typer.Option(help="Fixed length of the steady window, s (default: adaptive).")
]
MaxWindowSeconds = Annotated[
    float | None, typer.Option(help="An adaptive window ends here, s (default: 180).")
]
Precision = Annotated[
    float | None,
    typer.Option(help="Target for J/token: half 95 % interval / value (default: 0.02)."),
]
AllowGpuSettings = Annotated[
    bool | None,
    typer.Option(
        "--allow-gpu-settings",
        help="Allow device knobs to change the limits of real GPUs (needs root).",
    ),
]
ReadOnlyDevice = Annotated[
    bool | None,
    typer.Option(
        "--read-only-device", help="Set nothing on a real GPU, whatever this user may do."
    ),
]
EnergyGpu = Annotated[
    str | None,
    typer.Option(
        help="GPU whose energy is emulated without NVML (default: H100-SXM).",
        autocompletion=complete_gpu,
    ),
]
