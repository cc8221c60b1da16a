"""`tuner measure`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner.commands.shared.completion import complete_gpu, complete_workload
from tuner.commands.shared.options import (
    AllowGpuSettings,
    BaseUrl,
    Concurrency,
    EnergyGpu,
    Format,
    MaxWindowSeconds,
    Output,
    Precision,
    ReadOnlyDevice,
    RequestRate,
    Slos,
    Vllm,
    WindowSeconds,
)
from tuner.commands.shared.output import print_json, stdout_console


def measure(
    model: Annotated[str, typer.Option(help="Hugging Face name, or a folder with config.json.")],
    workload: Annotated[
        str, typer.Option(help="Shipped name or YAML file.", autocompletion=complete_workload)
    ] = "chat",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KNOB=VALUE: a vLLM flag, VARIABLE, device or load knob."),
    ] = None,
    slo: Slos = None,
    request_rate: RequestRate = None,
    concurrency: Concurrency = None,
    emulate: Annotated[
        str | None, typer.Option(help="Emulate this GPU.", autocompletion=complete_gpu)
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Emulator over HTTP, in real time.")] = False,
    base_url: BaseUrl = None,
    vllm: Vllm = None,
    window_s: WindowSeconds = None,
    max_window_s: MaxWindowSeconds = None,
    precision: Precision = None,
    allow_gpu_settings: AllowGpuSettings = None,
    read_only_device: ReadOnlyDevice = None,
    energy_gpu: EnergyGpu = None,
    output: Output = Format.TABLE,
) -> None:
    """Measure one configuration, once.

    Example: tuner measure --emulate H100-SXM --model Qwen/Qwen3-8B --set max_num_seqs=64
    """
    options = {k: v for k, v in locals().items() if k not in ("settings", "output")}
    from rich.console import Console

    from tuner.evaluation.measure_once import measure_once, parse_settings
    from tuner.host.signals import run_interruptible
    from tuner.report.terminal.measurement_table import measured_json, show_measured
    from tuner.spec.study import spec_from

    configuration = parse_settings(settings or [])
    spec = spec_from(None, {**options, "trials": 1})
    note = Console(stderr=True).print
    measured = run_interruptible(measure_once(spec, configuration, note))
    if output is Format.JSON:
        print_json(measured_json(measured))
    else:
        show_measured(stdout_console(), measured, spec.slos)
