"""Spec options: the command-line options of a measurement and of a study.

An option that is not given is None; the STUDY.yaml or the spec's own default then applies.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from tuner.commands.shared.completion import (
    complete_engine,
    complete_gpu,
    complete_space,
    complete_workload,
)
from tuner.commands.shared.options import Slos, Vllm


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecOptions:
    """Options of a measurement: model, load, server and window."""

    model: Annotated[
        str | None, typer.Option(help="Hugging Face name, or a folder with its config.json.")
    ] = None
    workload: Annotated[
        str | None,
        typer.Option(
            help="chat, code, reasoning, thinking, image, video, smoke, or a YAML file.",
            autocompletion=complete_workload,
        ),
    ] = None
    slo: Slos = None
    request_rate: Annotated[
        str | None,
        typer.Option(
            help="Open loop: requests/s, or e.g. 0.7x, a share of what the default configuration "
            "sustains under the SLO (searched first)."
        ),
    ] = None
    concurrency: Annotated[int | None, typer.Option(help="Closed loop: requests in flight.")] = None
    emulate: Annotated[
        str | None,
        typer.Option(
            help="Emulate this GPU, e.g. H100-SXM, on a virtual clock.",
            autocompletion=complete_gpu,
        ),
    ] = None
    engine: Annotated[
        str | None,
        typer.Option(
            help="Emulate this version of the server, e.g. vllm-0.11 (default: the newest).",
            autocompletion=complete_engine,
        ),
    ] = None
    live: Annotated[
        bool | None,
        typer.Option("--live", help="Run the emulator as a server, in real time over HTTP."),
    ] = None
    base_url: Annotated[
        str | None, typer.Option(help="Measure a server that is already running.")
    ] = None
    vllm: Vllm = None
    window_s: Annotated[
        float | None, typer.Option(help="Fixed length of the steady window, s (default: adaptive).")
    ] = None
    max_window_s: Annotated[
        float | None, typer.Option(help="Longest adaptive window, s (default: 180).")
    ] = None
    precision: Annotated[
        float | None,
        typer.Option(help="Target for J/token: half 95 % interval / value (default: 0.02)."),
    ] = None
    allow_gpu_settings: Annotated[
        bool | None,
        typer.Option(
            "--allow-gpu-settings",
            help="Allow device knobs to change the limits of real GPUs (needs root).",
        ),
    ] = None
    read_only_device: Annotated[
        bool | None,
        typer.Option(
            "--read-only-device", help="Never change settings of a real GPU, even with permission."
        ),
    ] = None
    energy_gpu: Annotated[
        str | None,
        typer.Option(
            help="GPU whose energy is emulated without NVML (default: H100-SXM).",
            autocompletion=complete_gpu,
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """Return the given options by their names in a STUDY.yaml."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions(SpecOptions):
    """Options of `tuner measure`, which has no STUDY.yaml: the model is required."""

    model: Annotated[str, typer.Option(help="Hugging Face name, or a folder with config.json.")]
    workload: Annotated[
        str, typer.Option(help="Shipped name or YAML file.", autocompletion=complete_workload)
    ] = "chat"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions(SpecOptions):
    """Options of `tuner run`: also search space, objectives, budget and sampler."""

    space: Annotated[
        str | None,
        typer.Option(
            help="default, power, precision, speculative, parallel, everything, thinking, "
            "diffusion, load, another one of search_spaces, or a YAML file; a+b joins them.",
            autocompletion=complete_space,
        ),
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Compare with these flags instead of vLLM's defaults: a YAML file, e.g. one for "
            "`vllm serve --config`."
        ),
    ] = None
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A flag or an environment variable of the baseline; may be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None
    gpus: Annotated[
        str | None,
        typer.Option(
            help="How many GPUs a server may use (default: all; one with --cards). `all` is short "
            "for --cards all.",
            metavar="N|all",
        ),
    ] = None
    cards: Annotated[
        str | None,
        typer.Option(
            help="Measure on so many cards at the same time, each with servers of its own: a "
            "number, or all.",
            metavar="N|all",
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            help="Measure on the GPUs of the Ray cluster at this address (HOST:6379, or auto), "
            "all of them unless --cards says how many.",
            metavar="ADDRESS",
        ),
    ] = None
    allow_output_changes: Annotated[
        bool | None,
        typer.Option(
            "--allow-output-changes",
            help="Search knobs that may change the model's answers, such as precision.",
        ),
    ] = None
    quality: Annotated[
        str | None,
        typer.Option(
            help="JSONL of questions (prompt or messages; answer or regex), asked of the baseline "
            "and of each confirmed configuration."
        ),
    ] = None
    quality_drop: Annotated[
        float | None,
        typer.Option(
            help="Largest drop of the share of right answers that stays on the front "
            "(default: 0.01)."
        ),
    ] = None
    picture_drop: Annotated[
        float | None,
        typer.Option(
            help="Largest drop of the mean SSIM to the baseline's images or videos of the same "
            "seeds that stays on the front (default: 0.3)."
        ),
    ] = None
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="What to minimise, or maximise with :max; may be repeated.", metavar="METRIC"
        ),
    ] = None
    trials: Annotated[int | None, typer.Option(help="Budget in trials.")] = None
    hours: Annotated[float | None, typer.Option(help="Budget in hours.")] = None
    study: Annotated[str | None, typer.Option(help="Name of the study.")] = None
    sampler: Annotated[str | None, typer.Option(help="gp, tpe or random (default: gp).")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of the search.")] = None
    port: Annotated[int | None, typer.Option(help="Port of the server (default: a free one).")] = (
        None
    )
    startup_deadline_s: Annotated[
        float | None, typer.Option(help="Time limit for a server start, s (default: 1800).")
    ] = None
    fork_servers: Annotated[
        bool | None,
        typer.Option(
            "--fork-servers/--no-fork-servers",
            help="Fork the servers of the search from processes that have imported vLLM, which "
            "shortens launches; the confirmation's are launched as usual (default: do not).",
        ),
    ] = None
    patience_s: Annotated[
        float | None,
        typer.Option(help="Longest wait in a row for a busy machine, s (default: 3600)."),
    ] = None
    client_priority: Annotated[
        bool | None,
        typer.Option(
            "--client-priority/--no-client-priority",
            help="Let the load client run before other processes on its core, where the user may "
            "(default: do).",
        ),
    ] = None
    confirm: Annotated[
        bool | None,
        typer.Option(
            "--confirm/--no-confirm",
            help="Measure the front again at the end, on clean launches (default: confirm).",
        ),
    ] = None
    racing: Annotated[
        bool | None,
        typer.Option(
            "--racing/--no-racing",
            help="End a trial of the search as soon as it is clear that it is no better than an "
            "earlier one on the same requests (default: do not).",
        ),
    ] = None
    checks: Annotated[
        bool | None,
        typer.Option(
            "--checks/--no-checks",
            help="After the confirmation: a stress test, idle power, the headroom (default: do).",
        ),
    ] = None
    headroom: Annotated[
        float | None,
        typer.Option(help="Recommend only what meets the SLO at so many times the load, e.g. 1.2."),
    ] = None
    loads: Annotated[
        str | None,
        typer.Option(
            help="After the checks: operating points for `tuner plan`, as shares of the capacity "
            "under the SLO, e.g. 0.25x,0.5x,0.75x,1x."
        ),
    ] = None
    confirm_repeats: Annotated[
        int | None, typer.Option(help="Most repeats per configuration (default: 4).")
    ] = None
    confirm_window_s: Annotated[
        float | None,
        typer.Option(
            help="Window of a repeat in an open loop, s (default: 4.5 --max-window-s, at most "
            "180, or --max-window-s if that is longer)."
        ),
    ] = None
    stop_when_flat: Annotated[
        bool | None,
        typer.Option(
            "--stop-when-flat/--no-stop-when-flat",
            help="End the search when its front stops growing (default: with --hours only).",
        ),
    ] = None
