"""Emulations: what a virtual evaluation runs, one for each kind of answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol

from tuner.catalog.diffusion.constants import diffusion_constants
from tuner.catalog.diffusion.model import DiffusionModel, is_diffusion_model, load_diffusion_model
from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.configuration import Configuration, Value
from tuner.emulator.diffusion.launch import (
    check_diffusion_flags,
    diffusion_defaults,
    resolve_diffusion,
)
from tuner.emulator.diffusion.service import idle_w, simulate_generations
from tuner.emulator.launch_rules import check_flags, default_flags, resolve
from tuner.emulator.virtual import replicas_for, simulate
from tuner.errors import UsageError
from tuner.evaluation.evaluator import LoadRun
from tuner.load.workload import Workload
from tuner.measurement.steady_window import SteadyWindow
from tuner.metrics import Output
from tuner.records import RawRun


class Emulation(Protocol):
    """An emulated server of one model on one kind of GPU."""

    @property
    def model_name(self) -> str:
        """The model's name, for messages."""

    def defaults(self) -> Mapping[str, Value]:
        """Return the value of every flag that is not set."""

    def check_flags(self, names: Iterable[str]) -> None:
        """Raise `UsageError` for the first flag whose effect is not emulated."""

    def launch(self, full: Configuration) -> None:
        """Raise `LaunchRefusedError` if the server would not start."""

    def run(self, full: Configuration, run: LoadRun, watch: SteadyWindow, seed: int) -> RawRun:
        """Run a load until the watch ends it; raises as `launch`."""

    def idle_w(self, full: Configuration, seed: int) -> float:
        """Return the power of the server without requests, all its GPUs."""


class TextEmulation:
    """Copies of a vLLM engine; `acceptance` is the workload's, of drafted tokens."""

    def __init__(
        self, model: ModelShape, gpu: Gpu, acceptance: Mapping[str, float] | None = None
    ) -> None:
        self._model, self._gpu, self._acceptance = model, gpu, acceptance
        self.model_name = model.name

    def defaults(self) -> Mapping[str, Value]:
        """Return vLLM's defaults on this GPU."""
        return default_flags(self._gpu)

    def check_flags(self, names: Iterable[str]) -> None:
        """Raise `UsageError` for the first flag whose effect is not emulated."""
        check_flags(names)

    def launch(self, full: Configuration) -> None:
        """Raise `LaunchRefusedError` if vLLM would not start."""
        resolve(self._model, self._gpu, full.flags)

    def run(self, full: Configuration, run: LoadRun, watch: SteadyWindow, seed: int) -> RawRun:
        """Run a load until the watch ends it; raises as `launch`."""
        requests = run.requests()
        first = next(requests)
        raw = simulate(
            self._model,
            self._gpu,
            full,
            chain([first], requests),
            run.load,
            watch,
            seed=seed,
            acceptance=self._acceptance,
        )
        return replace(raw, output=first.output)

    def idle_w(self, full: Configuration, seed: int) -> float:
        """Return the power of the engines without requests; it has no noise."""
        engines = replicas_for(self._model, self._gpu, full, seed=seed).engines
        return sum(engine.idle_w for engine in engines)


class DiffusionEmulation:
    """A vLLM-Omni service of images or videos."""

    def __init__(self, model: DiffusionModel, gpu: Gpu) -> None:
        self._model, self._gpu = model, gpu
        self.model_name = model.name

    def defaults(self) -> Mapping[str, Value]:
        """Return vLLM-Omni's defaults."""
        return diffusion_defaults()

    def check_flags(self, names: Iterable[str]) -> None:
        """Raise `UsageError` for the first flag whose effect is not emulated."""
        check_diffusion_flags(names)

    def launch(self, full: Configuration) -> None:
        """Raise `LaunchRefusedError` if the server would not start."""
        resolve_diffusion(self._model, self._gpu, full.flags)

    def run(self, full: Configuration, run: LoadRun, watch: SteadyWindow, seed: int) -> RawRun:
        """Run a load until the watch ends it; raises as `launch`."""
        requests = run.requests()
        return simulate_generations(
            self._model, self._gpu, full, requests, run.load, watch, seed=seed
        )

    def idle_w(self, full: Configuration, seed: int) -> float:
        """Return the power of the service without requests; it has no noise."""
        return idle_w(self._model, self._gpu, full)


def emulation_of(model_name: str, gpu: Gpu, workload: Workload) -> Emulation:
    """Return the emulation of a model under a workload.

    Raises `UsageError` for a model or a GPU that is not known, and for a model that does not make
    what the workload asks for.
    """
    output = workload.spec.output
    if not is_diffusion_model(model_name) and output.is_text:
        return TextEmulation(load_model(model_name), gpu, workload.spec.acceptance)
    if is_diffusion_model(model_name):
        model = load_diffusion_model(model_name)
        if model.output is not output:
            raise UsageError(
                f"{model.name} makes {model.makes}s, and workload '{workload.name}' asks for "
                f"{_asked(output)}; take --workload {model.makes}"
            )
        diffusion_constants(gpu.name)
        return DiffusionEmulation(model, gpu)
    load_diffusion_model(model_name)  # raises, and names those that make images or videos
    raise AssertionError(model_name)


def require_emulated(emulation: Emulation, flags: Iterable[str], variables: Sequence[str]) -> None:
    """Raise `UsageError` for a flag or a variable of a study whose effect is not emulated."""
    emulation.check_flags(flags)
    if variables:
        raise UsageError(
            f"{', '.join(variables)}: environment variables are not emulated; leave them out of "
            "the search space"
        )


def _asked(output: Output) -> str:
    return "text" if output.is_text else f"{output.value}s"
