"""From a spec to the evaluator that it asks for."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuner.configuration import Configuration, Value
from tuner.emulator.hardware import Gpu, load_gpu
from tuner.emulator.launch_rules import check_flags
from tuner.emulator.model import load_model
from tuner.errors import PreflightError, UsageError, unknown_name
from tuner.gpu.emulated import ActivityMeter, EmulatorServerMeter
from tuner.gpu.meter import Meter
from tuner.gpu.nvml import nvml_meter
from tuner.load.workload import Workload
from tuner.measure.window import WindowPlan
from tuner.records import Source
from tuner.serving.vllm import find_vllm, known_flags, vllm_version
from tuner.study.attached import AttachedEvaluator
from tuner.study.evaluator import Evaluator, Task
from tuner.study.live import LaunchSettings, LiveEvaluator, ServerKind
from tuner.study.space import SearchSpace
from tuner.study.spec import StudySpec
from tuner.study.virtual import VirtualEvaluator, emulated_defaults

_EMULATOR = (sys.executable, "-m", "tuner.emulator")
_DEVICE_VARIABLES = {
    "power_limit_w": "TUNER_EMULATED_POWER_LIMIT_W",
    "sm_clock_mhz": "TUNER_EMULATED_SM_CLOCK_MHZ",
}


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where a run leaves its logs, and the tag by which its servers are found again."""

    run_tag: str
    log_folder: Path


def task_of(spec: StudySpec, workload: Workload, fixed: Configuration) -> Task:
    """Return what every configuration of the spec is measured with."""
    return Task(
        model=spec.model,
        workload=workload,
        load=spec.load or workload.default_load,
        slos=spec.slos,
        window=WindowPlan(window_s=spec.window_s, warmup_limit_s=3.0 * spec.window_s),
        fixed=fixed,
    )


def make_evaluator(
    spec: StudySpec, task: Task, knobs: Mapping[str, str], place: RunPlace
) -> Evaluator:
    """Return the evaluator for a spec; `knobs` maps each knob's name to its section.

    Raises `UsageError` for knobs that this evaluator does not know, `PreflightError` for what this
    machine lacks.
    """
    if spec.base_url is not None:
        return _attached(spec, spec.base_url, task, knobs)
    if spec.emulate is None:
        return _live_vllm(spec, task, knobs, place)
    gpu = load_gpu(spec.emulate)
    model = load_model(spec.model)
    check_flags([*task.fixed.flags, *(n for n, section in knobs.items() if section == "flags")])
    if spec.live:
        return _live_emulator(spec, gpu, task, place)
    return VirtualEvaluator(model, gpu, task, spec.seed)


def _settings(spec: StudySpec, place: RunPlace) -> LaunchSettings:
    return LaunchSettings(place.run_tag, place.log_folder, spec.startup_deadline_s, spec.port)


def _live_vllm(
    spec: StudySpec, task: Task, knobs: Mapping[str, str], place: RunPlace
) -> LiveEvaluator:
    _require_model_folder(spec.model, task.workload)
    if device := [name for name, section in knobs.items() if section == "device"]:
        raise PreflightError(
            f"{', '.join(device)} cannot be set on a real GPU by this version; use a search space "
            "without device knobs (--space default), or --emulate a GPU"
        )
    command = find_vllm(spec.vllm)
    version = vllm_version(command)
    flags = known_flags(command)
    for name in [*task.fixed.flags, *(n for n, section in knobs.items() if section == "flags")]:
        if name not in flags:
            raise UsageError(unknown_name(f"flag of vLLM {version}", name, flags))

    def meter(configuration: Configuration) -> Meter:
        return nvml_meter(gpus_used(configuration)) or _activity_meter(spec, task)

    # opens /server_info on 127.0.0.1, which says what the default of each flag is
    environment = {"VLLM_SERVER_DEV_MODE": "1"}
    server = ServerKind(command, version, Source.MEASURED, meter, lambda _: environment, None)
    return LiveEvaluator(server, task, _settings(spec, place))


def gpus_used(configuration: Configuration) -> int:
    """Return how many GPUs a server with these flags takes."""
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    count = 1
    for size in sizes:
        count *= int(configuration.flags.get(size, 1))
    return count


def _activity_meter(spec: StudySpec, task: Task) -> ActivityMeter:
    try:
        model = load_model(spec.model)
    except UsageError as error:
        raise UsageError(
            f"there is no NVML here to measure energy, and to emulate it the model's shape must be "
            f"known: {error}"
        ) from None
    return ActivityMeter(model, load_gpu(spec.energy_gpu), _mean_context_tokens(task.workload))


def _mean_context_tokens(workload: Workload) -> float:
    """Return the mean context of a request half-way through its answer."""
    sample = itertools.islice(workload.requests(), 256)
    return float(np.mean([r.prompt_token_ids.size + r.output_tokens / 2 for r in sample]))


def _require_model_folder(model: str, workload: Workload) -> None:
    """Check what can be known of a model on disk; a name is left to vLLM to find."""
    looks_like_path = model.startswith((".", "/", "~")) or Path(model).exists()
    if not looks_like_path:
        return
    path = Path(model).expanduser() / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UsageError(
            f"the model folder '{model}' does not exist or has no config.json; give the folder of "
            "a Hugging Face model, or its name (org/model)"
        ) from None
    except ValueError as error:
        raise UsageError(f"'{path}' is not JSON: {error}") from None
    vocab_size = config.get("vocab_size") if isinstance(config, dict) else None
    if isinstance(vocab_size, int) and vocab_size < workload.spec.vocab_size:
        raise UsageError(
            f"workload '{workload.name}' has token ids up to {workload.spec.vocab_size}, the model "
            f"knows {vocab_size}; copy the workload and set its vocab_size"
        )


def _live_emulator(spec: StudySpec, gpu: Gpu, task: Task, place: RunPlace) -> LiveEvaluator:
    def environment(configuration: Configuration) -> dict[str, str]:
        return {"TUNER_EMULATED_GPU": str(spec.emulate)} | {
            _DEVICE_VARIABLES[knob]: str(value) for knob, value in configuration.device.items()
        }

    server = ServerKind(
        command=_EMULATOR,
        version="emulator",
        source=Source.EMULATED,
        meter=lambda _: EmulatorServerMeter(gpu.name),
        environment=environment,
        defaults=emulated_defaults(gpu, task.load),
    )
    return LiveEvaluator(server, task, _settings(spec, place))


def _attached(
    spec: StudySpec, base_url: str, task: Task, knobs: Mapping[str, str]
) -> AttachedEvaluator:
    if others := [name for name, section in knobs.items() if section != "load"]:
        raise UsageError(
            f"{', '.join(others)} cannot be changed in a server that is already running; with "
            "--base-url use a search space of load knobs only (--space load)"
        )
    return AttachedEvaluator(base_url, task, lambda: nvml_meter() or _activity_meter(spec, task))


def space_knobs(space: SearchSpace) -> dict[str, str]:
    """Return the section of each knob of a space."""
    return {name: section for section, name, _ in space.knobs()}


def fixed_configuration(space: SearchSpace) -> Configuration:
    """Return the settings that every configuration of a space shares."""
    flags: dict[str, Value] = dict(space.fixed.flags)
    return Configuration(flags=flags, environment=dict(space.fixed.environment))
