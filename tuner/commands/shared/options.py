"""Shared options: store, study, format, SLO and vLLM."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tuner.commands.shared.completion import complete_study


class Format(StrEnum):
    """Result formats."""

    TABLE = "table"
    JSON = "json"


StoreUrl = Annotated[
    str,
    typer.Option("--store", help="SQLite file or database URL (or in TUNER_STORE)."),
]
Name = Annotated[
    str | None,
    typer.Argument(
        help="The study's name (see `tuner list`); default: the store's only one.",
        autocompletion=complete_study,
    ),
]
Output = Annotated[Format, typer.Option("--format", help="Format of the result.")]
StudyOption = Annotated[
    str | None,
    typer.Option(
        "--study", help="The study; default: the store's only one.", autocompletion=complete_study
    ),
]
Slos = Annotated[
    list[str] | None,
    typer.Option(
        "--slo",
        help="Bound on a metric, e.g. 'p99_tpot_ms<=50'; may be repeated.",
        metavar="BOUND",
    ),
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", help="Go on although the default's measurement speaks against the SLO or the load."
    ),
]
Notify = Annotated[
    list[str] | None,
    typer.Option(
        help="URL of a webhook (JSON with `text`, as Slack takes) or a command, told when the run "
        "ends or needs you; may be repeated.",
        metavar="URL|COMMAND",
    ),
]
MetricsFile = Annotated[
    Path | None,
    typer.Option(
        help="Keep Prometheus metrics of the run in this file, e.g. for node_exporter's textfile "
        "collector (NAME.prom).",
        metavar="FILE",
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Serve Prometheus metrics of the run on this port."),
]
MetricsHost = Annotated[
    str, typer.Option(help="The address that --metrics-port listens on.", metavar="ADDRESS")
]
Mlflow = Annotated[
    str | None,
    typer.Option(
        help="Also write the study to this MLflow tracking server or database when it ends, e.g. "
        "http://127.0.0.1:5000.",
        metavar="URI",
    ),
]
Wandb = Annotated[
    str | None,
    typer.Option(
        help="Also write the study to this project of Weights & Biases when it ends.",
        metavar="PROJECT",
    ),
]
Vllm = Annotated[str | None, typer.Option(help="The vllm executable (or in TUNER_VLLM).")]
