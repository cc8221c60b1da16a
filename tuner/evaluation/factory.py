"""Evaluator factory: build the evaluator that a spec asks for."""

from __future__ import annotations

import itertools
import json
import math
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import UNSET, Configuration
from tuner.devices.emulated.meters import ActivityMeter, BusyMeter
from tuner.devices.limit_control import Access
from tuner.devices.meter import Meter
from tuner.devices.open import open_meter
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.http.arguments import DEVICES_VARIABLE, ENGINE_VARIABLE, GPU_VARIABLE
from tuner.errors import PreflightError, UsageError
from tuner.evaluation.attached import AttachedEvaluator
from tuner.evaluation.device_knobs import DeviceKnobs
from tuner.evaluation.emulated.emulation import emulation_of, require_emulated
from tuner.evaluation.emulated.virtual import VirtualEvaluator, emulated_defaults
from tuner.evaluation.evaluator import Evaluator, MeasurementPlan
from tuner.evaluation.launched.emulated_machine import EmulatedMachine
from tuner.evaluation.launched.launch_sharing import LiveKnobs
from tuner.evaluation.launched.launched import ServedEvaluator
from tuner.evaluation.launched.warm_server import LaunchSettings, ServerSpec
from tuner.evaluation.traffic import BLOCKS_PER_WINDOW, Traffic
from tuner.load.heaviness.stretch_heaviness import stretch_heaviness
from tuner.load.summary import output_lengths
from tuner.load.workload import Workload
from tuner.measurement.listener import NOBODY, LoadListener
from tuner.measurement.quality.questions import read_questions
from tuner.metrics import Output
from tuner.records import GenerationRequest, Source
from tuner.servers.registry import emulated_server, flag_rules, installed_server
from tuner.slo import Slo
from tuner.spec.baseline import Baseline
from tuner.spec.knobs import Choice, Integer, PowerOfTwo, Variants
from tuner.spec.search_space import SearchSpace, names_searched
from tuner.spec.study import StudySpec

_PICTURES = {Output.IMAGE: 4, Output.VIDEO: 1}  # that a configuration makes to be compared
_EMULATOR = (sys.executable, "-m", "tuner.emulator")


@dataclass(frozen=True, slots=True)
class RunContext:
    """Run context: the log folder, the tag of the servers, and permissions on real GPUs.

    `listener` receives the progress of each load and messages for the user.
    """

    run_tag: str
    log_folder: Path
    access: Access = Access.SET
    listener: LoadListener = NOBODY


@dataclass(frozen=True, slots=True)
class Knobs:
    """The knobs of a study, by name and section.

    `widest` is a configuration that uses the most GPUs. `extremes` are the ends of the device
    knobs' ranges. `live` are the knobs that can change in a running server.
    """

    sections: Mapping[str, str]
    widest: Configuration
    extremes: tuple[Configuration, ...]
    live: LiveKnobs

    def of(self, section: str) -> list[str]:
        """Return the names in a section."""
        return [name for name, where in self.sections.items() if where == section]


def measurement_plan(
    spec: StudySpec,
    workload: Workload,
    fixed: Configuration,
    baseline: Configuration | None = None,
) -> MeasurementPlan:
    """Return the measurement plan of a spec; `baseline` as in `MeasurementPlan`."""
    load, window = spec.load or workload.default_load, spec.window_plan
    traffic = Traffic(workload, spec.traffic, window.longest_window_s)
    unseen_window = window
    if load.request_rate is not None:
        fills_in_s = _fills_in_s(spec.slos, workload)
        unseen_window = spec.confirm_window_plan.on_one_stretch(fills_in_s)
        if traffic.kind == "representative":
            block_s = traffic.window_s / BLOCKS_PER_WINDOW
            fills_in_s = math.ceil(fills_in_s / block_s) * block_s
        window = window.on_one_stretch(fills_in_s)
    begins_s = unseen_window.latest_start_s
    unseen_s = (begins_s, begins_s + unseen_window.longest_window_s)
    return MeasurementPlan(
        model=spec.model,
        traffic=traffic,
        load=load,
        slos=spec.slos,
        window=window,
        unseen_window=unseen_window,
        fixed=fixed,
        baseline=baseline or Configuration(),
        questions=() if spec.quality is None else read_questions(Path(spec.quality)),
        pictures=_pictures(workload),
        heaviness=stretch_heaviness(workload, load, spec.slos, unseen_s),
    )


def _pictures(workload: Workload) -> tuple[GenerationRequest, ...]:
    """Return the first requests of a workload of images or videos, whose pictures are compared."""
    asked = itertools.islice(workload.requests(), _PICTURES.get(workload.spec.output, 0))
    return tuple(request for request in asked if isinstance(request, GenerationRequest))


def _fills_in_s(slos: Sequence[Slo], workload: Workload) -> float:
    """Return the duration of a mean request at the SLO's bound on TPOT, s; 0 without a bound.

    In an open loop the number of requests in flight grows for this long, even if the server keeps
    up.
    """
    bounds_ms = [slo.bound for slo in slos if slo.metric.endswith("_tpot_ms")]
    if not bounds_ms:
        return 0.0
    mean_tokens = float(output_lengths(workload).mean())
    return mean_tokens * max(bounds_ms) / 1e3


def make_evaluator(
    spec: StudySpec, plan: MeasurementPlan, knobs: Knobs, context: RunContext
) -> Evaluator:
    """Return the evaluator for a spec.

    Raises `UsageError` for knobs that this evaluator does not know, `PreflightError` if this
    machine lacks something.
    """
    if spec.base_url is not None:
        return _attached(spec, spec.base_url, plan, knobs, context)
    if spec.emulate is None:
        return _served_model(spec, plan, knobs, context)
    gpu = load_gpu(spec.emulate, spec.engine)
    emulation = emulation_of(spec.model, gpu, plan.workload)
    require_emulated(
        emulation,
        [*plan.fixed.flags, *plan.baseline.flags, *knobs.of("flags")],
        [*plan.fixed.environment, *plan.baseline.environment, *knobs.of("environment")],
    )
    for extreme in knobs.extremes:
        PowerModel.under(gpu, extreme.device)  # raises for limits that this GPU does not have
    if spec.live:
        if not plan.workload.spec.output.is_text:
            raise UsageError("--live serves text only; images and videos are emulated without it")
        return _served_emulator(spec, gpu, plan, knobs, context)
    return VirtualEvaluator(emulation, gpu, plan, spec.seed, knobs.live)


def _settings(spec: StudySpec, context: RunContext) -> LaunchSettings:
    return LaunchSettings(
        context.run_tag,
        context.log_folder,
        spec.startup_deadline_s,
        spec.port,
        context.listener,
        spec.fork_servers,
    )


def _served_model(
    spec: StudySpec, plan: MeasurementPlan, knobs: Knobs, context: RunContext
) -> ServedEvaluator:
    if plan.workload.spec.output.is_text:
        _require_model_folder(spec.model, plan.workload)
    if device := knobs.of("device"):
        _require_allowed(spec, device)
    server = installed_server(spec.vllm, plan.workload.spec.output)
    for name in [*plan.fixed.flags, *plan.baseline.flags, *knobs.of("flags")]:
        if reason := server.unknown_flag(name):
            raise UsageError(reason)
    for name in [
        *plan.fixed.environment,
        *plan.baseline.environment,
        *knobs.of("environment"),
    ]:
        if reason := server.unknown_variable(name):
            raise UsageError(reason)
    live = knobs.live
    if live.largest and (problem := server.limits_problem):
        context.listener.note(f"{problem}: each configuration is launched")
        live = LiveKnobs({})
    if live.largest and any(map(server.rules.needs_text, knobs.of("flags"))):
        context.listener.note(
            "a configuration with drafts is launched, and its limits stay: the server sets the "
            "tokens of a step itself then"
        )

    def meter(configuration: Configuration) -> Meter:
        return open_meter(server.rules.gpus_used(configuration)) or _activity_meter(spec, plan)

    launch = ServerSpec(
        server,
        source=Source.MEASURED,
        meter=meter,
        widest=plan.full(knobs.widest),
        defaults=None,
        live=live,
    )
    device_knobs = DeviceKnobs(context.run_tag, knobs.extremes) if device else None
    return ServedEvaluator(launch, plan, _settings(spec, context), device_knobs)


def _require_allowed(spec: StudySpec, device: list[str]) -> None:
    names = ", ".join(device)
    if spec.read_only_device:
        raise UsageError(
            f"{names} would change settings of real GPUs, which --read-only-device forbids; leave "
            "them out, or use a search space without device knobs (--space default)"
        )
    if not spec.allow_gpu_settings:
        raise PreflightError(
            f"{names} would change settings of real GPUs; allow it with --allow-gpu-settings "
            "(needs root; the old settings are restored at the end, and after a crash), use a "
            "search space without device knobs (--space default), or --emulate a GPU"
        )


def _activity_meter(spec: StudySpec, plan: MeasurementPlan, names: Sequence[str] = ()) -> Meter:
    """Return a meter by the counters of a server, whose model may have several names."""
    if not plan.workload.spec.output.is_text:
        return BusyMeter(load_gpu(spec.energy_gpu))
    problem: UsageError | None = None
    model = None
    for name in (spec.model, *names):
        try:
            model = load_model(name)
            break
        except UsageError as error:
            problem = problem or error
    if model is None:
        raise UsageError(
            f"there is no NVML here to measure energy, and to emulate it the model's shape must be "
            f"known: {problem}"
        )
    return ActivityMeter(model, load_gpu(spec.energy_gpu), _mean_context_tokens(plan.workload))


def _mean_context_tokens(workload: Workload) -> float:
    """Return the mean context length, tokens, of a request half-way through its answer."""
    sample = itertools.islice(workload.requests(), 256)
    return float(np.mean([r.prompt_token_ids.size + r.output_tokens / 2 for r in sample]))


def _require_model_folder(model: str, workload: Workload) -> None:
    """Check a model that is on disk; vLLM resolves a hub name."""
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


def _served_emulator(
    spec: StudySpec, gpu: Gpu, plan: MeasurementPlan, knobs: Knobs, context: RunContext
) -> ServedEvaluator:
    machine = EmulatedMachine(gpu)
    variables = {
        GPU_VARIABLE: str(spec.emulate),
        ENGINE_VARIABLE: gpu.engine,
        DEVICES_VARIABLE: str(machine.path),
    }
    launch = ServerSpec(
        emulated_server(_EMULATOR, "emulator", variables),
        source=Source.EMULATED,
        meter=machine.meter,
        widest=Configuration(),
        defaults=emulated_defaults(gpu, plan.load),
        live=knobs.live,
    )
    return ServedEvaluator(launch, plan, _settings(spec, context), machine)


def _attached(
    spec: StudySpec, base_url: str, plan: MeasurementPlan, knobs: Knobs, context: RunContext
) -> AttachedEvaluator:
    if others := [name for name, section in knobs.sections.items() if section != "load"]:
        raise UsageError(
            f"{', '.join(others)} cannot be changed in a server that is already running; with "
            "--base-url use a search space of load knobs only (--space load)"
        )

    def meter(names: Sequence[str]) -> Meter:
        # the GPUs of this machine are not those of a server on another machine
        local = open_meter() if _is_here(base_url) else None
        return local or _activity_meter(spec, plan, names)

    return AttachedEvaluator(base_url, plan, meter, context.listener)


def _is_here(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1", socket.gethostname()) or host.startswith("127.")


def space_knobs(
    space: SearchSpace, gpus: int | None = None, fixed: Configuration | None = None
) -> Knobs:
    """Return the knobs of a search space, with what is `fixed` on at most `gpus` GPUs."""
    sections: dict[str, str] = {name: section for section, name in space.settings()}
    widest = _widest(space, gpus, fixed or Configuration())
    extremes = tuple(
        Configuration(device={name: end})
        for section, name, knob in space.knobs()
        if section == "device"
        if not isinstance(knob, Variants)
        for end in (knob.choices if isinstance(knob, Choice) else (knob.low, knob.high))
        if end != UNSET
    )
    largest = {
        name: knob.high
        for _, name, knob in space.knobs()
        if space.kind(name) == "live" and isinstance(knob, PowerOfTwo | Integer)
    }
    return Knobs(sections, widest, extremes, LiveKnobs(largest))


def configuration_knobs(configuration: Configuration) -> Knobs:
    """Return the settings of one configuration as knobs."""
    sections = {
        name: section for section, values in configuration.to_json().items() for name in values
    }
    return Knobs(sections, configuration, (configuration,), LiveKnobs({}))


def _widest(space: SearchSpace, gpus: int | None, fixed: Configuration) -> Configuration:
    """Return the parallel sizes of a configuration that uses the most GPUs, at most `gpus`."""
    rules = flag_rules()
    sizes = {
        name: list(knob.values())
        for section, name, knob in space.knobs()
        if section == "flags" and name in rules.parallel_sizes and not isinstance(knob, Variants)
    }

    def gpus_used(one: Configuration) -> int:
        return rules.gpus_used(one.with_fixed(fixed))

    every = [
        Configuration({name: v for name, v in zip(sizes, values, strict=True) if v != UNSET})
        for values in itertools.product(*sizes.values())
    ]
    allowed = [one for one in every if gpus is None or gpus_used(one) <= gpus]
    return max(allowed, key=gpus_used, default=Configuration())


def fixed_configuration(space: SearchSpace, baseline: Baseline | None = None) -> Configuration:
    """Return the settings that every configuration of a study shares.

    These are the space's own, and those of the user's baseline that the space does not search.
    """
    own = Configuration() if baseline is None else baseline.configuration
    whole = own.with_fixed(Configuration(space.fixed.flags, space.fixed.environment))
    searched = names_searched(space, [*whole.flags, *whole.environment])
    return Configuration(
        {name: value for name, value in whole.flags.items() if name not in searched},
        {name: value for name, value in whole.environment.items() if name not in searched},
    )


def baseline_configuration(space: SearchSpace, baseline: Baseline | None) -> Configuration:
    """Return the baseline's values of the knobs that the space searches."""
    if baseline is None:
        return Configuration()
    own = baseline.configuration
    searched = names_searched(space, own.knobs())
    return Configuration(
        flags={name: value for name, value in own.flags.items() if name in searched},
        environment={name: value for name, value in own.environment.items() if name in searched},
    )
