"""The command line: thin commands; heavy imports only where they are used."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tuner import DEFAULT_STORE
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


class Format(StrEnum):
    """Result formats."""

    TABLE = "table"
    JSON = "json"


class RecommendFormat(StrEnum):
    """Formats of a recommendation."""

    TABLE = "table"
    JSON = "json"
    VLLM = "vllm"


StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="TUNER_STORE",
        help="SQLite file or database URL.",
    ),
]
Name = Annotated[str, typer.Argument(help="The study's name (see `tuner list`).")]
Slos = Annotated[
    list[str] | None,
    typer.Option("--slo", help="Bound on a metric, e.g. 'p99_tpot_ms<=50'; may be repeated."),
]


@app.command()
def run(
    study_file: Annotated[
        Path | None, typer.Argument(help="STUDY.yaml with any of the options below.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Hugging Face name, or a folder with its config.json.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="chat, code, reasoning, smoke, or a YAML file.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="default, power, load, cpu-smoke, or a YAML file.")
    ] = None,
    slo: Slos = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="Metric, or METRIC:min / METRIC:max; may be repeated."),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Budget in trials.")] = None,
    hours: Annotated[float | None, typer.Option(help="Budget in hours.")] = None,
    request_rate: Annotated[
        str | None,
        typer.Option(
            help="Open loop: requests/s, or e.g. 0.7x, a share of what the default configuration "
            "sustains under the SLO (searched first)."
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Closed loop: requests under way.")
    ] = None,
    emulate: Annotated[
        str | None, typer.Option(help="Emulate this GPU, e.g. H100-SXM, on a virtual clock.")
    ] = None,
    live: Annotated[
        bool | None,
        typer.Option("--live", help="Run the emulator as a server, in real time over HTTP."),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Measure a server that is already running.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    study: Annotated[str | None, typer.Option(help="Name of the study.")] = None,
    window_s: Annotated[
        float | None, typer.Option(help="Fixed length of the steady window, s [default: adaptive].")
    ] = None,
    max_window_s: Annotated[
        float | None, typer.Option(help="An adaptive window ends here, s [default: 180].")
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(help="Target for J/token: half 95 % interval / value [default: 0.02]."),
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="gp, tpe or random [default: gp].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search.")] = None,
    vllm: Annotated[
        str | None, typer.Option(envvar="TUNER_VLLM", help="The vllm executable.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the server [default: a free one].")
    ] = None,
    startup_deadline_s: Annotated[
        float | None, typer.Option(help="Give up a start after so long [default: 1800].")
    ] = None,
    confirm: Annotated[
        bool | None,
        typer.Option(
            "--confirm/--no-confirm",
            help="At the end measure the front again, on clean launches [default: confirm].",
        ),
    ] = None,
    confirm_repeats: Annotated[
        int | None, typer.Option(help="At most so many times each [default: 3].")
    ] = None,
    stop_when_flat: Annotated[
        bool | None,
        typer.Option(
            "--stop-when-flat/--no-stop-when-flat",
            help="End the search when its front no longer grows [default: with --hours only].",
        ),
    ] = None,
    allow_gpu_settings: Annotated[
        bool | None,
        typer.Option(
            "--allow-gpu-settings",
            help="Allow device knobs to change the limits of real GPUs (needs root).",
        ),
    ] = None,
    read_only_device: Annotated[
        bool | None,
        typer.Option(
            "--read-only-device", help="Set nothing on a real GPU, whatever this user may do."
        ),
    ] = None,
    energy_gpu: Annotated[
        str | None,
        typer.Option(help="GPU whose energy is emulated without NVML [default: H100-SXM]."),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """Run a study: find the configurations of least energy that meet the SLO.

    Example: tuner run --model meta-llama/Llama-3.1-8B-Instruct --workload chat --space power
    --slo 'p99_tpot_ms<=50' --hours 8
    """
    options = {k: v for k, v in locals().items() if k not in ("study_file", "store", "output")}
    from tuner.commands import run_study

    run_study(study_file, options, store, as_json=output is Format.JSON)


@app.command()
def resume(
    name: Name,
    trials: Annotated[int | None, typer.Option(min=1, help="So many trials more.")] = None,
    hours: Annotated[float | None, typer.Option(help="So many hours more.")] = None,
    confirm: Annotated[
        bool | None,
        typer.Option(
            "--confirm/--no-confirm", help="Measure the front again [default: as for the run]."
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """Go on with an interrupted study to its original budget, or beyond it, and confirm it."""
    from tuner.commands import resume_named

    resume_named(name, trials, hours, store, confirm=confirm, as_json=output is Format.JSON)


@app.command("list")
def list_studies(
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """List the studies in the store."""
    from tuner.commands import show_list

    show_list(store, as_json=output is Format.JSON)


@app.command()
def show(
    name: Name,
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """Show one study: what it measured with, its trials, its front and what happened."""
    from tuner.commands import show_study

    show_study(name, store, as_json=output is Format.JSON)


@app.command()
def recommend(
    model: Annotated[
        str | None, typer.Argument(help="Model, or the end of its name; default: the newest.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Take this study.")] = None,
    slo: Slos = None,
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[
        RecommendFormat, typer.Option("--format", help="table, json, or vllm (for --config).")
    ] = RecommendFormat.TABLE,
) -> None:
    """Recommend the configuration that uses the least energy and meets every SLO."""
    from tuner.commands import show_recommendation

    show_recommendation(model, study, slo, store, output.value)


@app.command()
def export(
    name: Name,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file; - for stdout.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write a Parquet file.")] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Export a study, one row per trial."""
    from tuner.commands import export_study

    export_study(name, csv, parquet, store)


@app.command()
def measure(
    model: Annotated[str, typer.Option(help="Hugging Face name, or a folder with config.json.")],
    workload: Annotated[str, typer.Option(help="Shipped name or YAML file.")] = "chat",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KNOB=VALUE: a vLLM flag, VARIABLE, device or load knob."),
    ] = None,
    slo: Slos = None,
    request_rate: Annotated[float | None, typer.Option(help="Open loop: req/s.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Closed loop.")] = None,
    emulate: Annotated[str | None, typer.Option(help="Emulate this GPU.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Emulator over HTTP, in real time.")] = False,
    base_url: Annotated[str | None, typer.Option(help="A server that runs already.")] = None,
    vllm: Annotated[
        str | None, typer.Option(envvar="TUNER_VLLM", help="The vllm executable.")
    ] = None,
    window_s: Annotated[
        float | None, typer.Option(help="Fixed length of the steady window, s [default: adaptive].")
    ] = None,
    max_window_s: Annotated[
        float | None, typer.Option(help="An adaptive window ends here, s [default: 180].")
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(help="Target for J/token: half 95 % interval / value [default: 0.02]."),
    ] = None,
    allow_gpu_settings: Annotated[
        bool,
        typer.Option("--allow-gpu-settings", help="Allow device knobs on real GPUs (needs root)."),
    ] = False,
    read_only_device: Annotated[
        bool, typer.Option("--read-only-device", help="Set nothing on a real GPU, even as root.")
    ] = False,
    energy_gpu: Annotated[
        str, typer.Option(help="GPU whose energy is emulated without NVML.")
    ] = "H100-SXM",
    output: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """Measure one configuration, once.

    Example: tuner measure --emulate H100-SXM --model Qwen/Qwen3-8B --set max_num_seqs=64
    """
    options = {k: v for k, v in locals().items() if k not in ("settings", "output")}
    from tuner.commands import measure_configuration

    measure_configuration(options, settings or [], as_json=output is Format.JSON)


@app.command()
def calibrate(
    studies: Annotated[
        list[str] | None,
        typer.Argument(help="Studies of real runs; without one, all in the store."),
    ] = None,
    gpu: Annotated[
        str, typer.Option(help="The emulated GPU to correct: a name or a file.")
    ] = "H100-SXM",
    output_file: Annotated[
        Path, typer.Option("--output", "-o", help="New GPU file for --emulate.")
    ] = Path("calibrated.yaml"),
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """Correct an emulated GPU by real measurements in the store, and say how wrong it was.

    Example: tuner calibrate my-study --gpu H100-SXM -o my-h100.yaml
    """
    from tuner.calibrate_commands import calibrate_gpu

    calibrate_gpu(studies or [], gpu, output_file, store, as_json=output is Format.JSON)


class ImportFormat(StrEnum):
    """Formats of traces."""

    AZURE = "azure"
    MOONCAKE = "mooncake"
    SHAREGPT = "sharegpt"
    JSONL = "jsonl"


WorkloadName = Annotated[str, typer.Argument(help="Shipped name or YAML file.")]
workload_app = typer.Typer(no_args_is_help=True, help="Workloads: what is sent to the server.")
app.add_typer(workload_app, name="workload")


@workload_app.command("show")
def workload_show(
    name: WorkloadName,
    output: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """Show a workload: its load, hash, lengths and sources."""
    from tuner.workload_commands import show_workload

    show_workload(name, as_json=output is Format.JSON)


@workload_app.command("preview")
def workload_preview(
    name: WorkloadName,
    requests: Annotated[int, typer.Option(min=1, max=100_000, help="Look at so many.")] = 2000,
) -> None:
    """Draw histograms of lengths and arrivals."""
    from tuner.workload_commands import preview_workload

    preview_workload(name, requests)


@workload_app.command("import")
def workload_import(
    file: Annotated[Path, typer.Argument(help="The trace; .gz is unpacked.")],
    form: Annotated[ImportFormat, typer.Option("--format", help="What the file is.")],
    out: Annotated[Path, typer.Option(help="New YAML file; the trace goes beside it.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N requests.")] = None,
) -> None:
    """Make a workload of a trace: Azure CSV, Mooncake, ShareGPT, or JSONL with prompts."""
    from tuner.workload_commands import import_trace

    import_trace(file, form.value, out, limit)


gpu = typer.Typer(no_args_is_help=True, help="The GPUs' limits, as found and as set.")
app.add_typer(gpu, name="gpu")


@gpu.command("status")
def gpu_status(
    output: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """Show power limits and clocks: as found, as set, and the default."""
    from tuner import commands

    commands.gpu_status(as_json=output is Format.JSON)


@gpu.command("restore")
def gpu_restore(
    force: Annotated[
        bool, typer.Option("--force", help="Also take GPUs away from runs that are alive.")
    ] = False,
    output: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """Put back what a crash left set: to what was found, not to the default."""
    from tuner import commands

    commands.gpu_restore(force=force, as_json=output is Format.JSON)


def main() -> NoReturn:
    """Run the command line; every known error is one sentence on stderr and its exit code."""
    try:
        app()
    except (TunerError, InterruptedBySignalError) as error:
        typer.echo(f"tuner: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
