"""Virtual evaluation: run the emulator's engine on a virtual clock, without server or waiting."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tuner.analysis.deployment.switching import Switching
from tuner.catalog.gpu import Gpu
from tuner.configuration import Configuration, Value
from tuner.emulator.launch_rules import default_flags
from tuner.emulator.refusal import LaunchRefusedError
from tuner.errors import PreflightError
from tuner.evaluation.emulated.emulation import Emulation
from tuner.evaluation.evaluator import (
    IDLE_POWER,
    IDLE_S,
    Evaluation,
    LoadRun,
    MeasurementPlan,
    Testbed,
    load_defaults,
)
from tuner.evaluation.launched.launch_sharing import REPEATS_A_LAUNCH, Launch, LiveKnobs
from tuner.measurement.steady_window import SteadyWindow
from tuner.records import Failure, FailureKind, Load, Measurement, Source, Timing

# Virtual seconds of a launch (weights, compilation and graph capture of an 8B model), and of
# switching a warm server to another configuration (warm-up requests, an empty prefix cache, time to
# settle). They decide how many trials fit into `--hours`, but no metric.
LAUNCH_S = 120.0
CHANGE_S = 2.0
_FIRST_REPEAT = 1_000_000  # repeats have their own noise


EMULATOR_VERSION = "emulator"


class VirtualEvaluator:
    """Runs the emulator's engine for each configuration.

    Time is spent as on a served model, including launches when `live` and the rest of the
    configuration require one. The simulation itself is always of a clean launch.
    """

    needs_guardian = False

    def __init__(
        self, emulation: Emulation, gpu: Gpu, plan: MeasurementPlan, seed: int, live: LiveKnobs
    ) -> None:
        self._emulation = emulation
        self._gpu = gpu
        self._plan = plan
        self._seed = seed
        self._live = live
        self._launch: Launch | None = None  # of the warm server that would run now
        self._repeats = 0  # that it served

    async def prepare(self) -> Testbed:
        """Return the emulated testbed."""
        return Testbed(
            kind="virtual",
            server_version=EMULATOR_VERSION,
            gpu=self._gpu.name,
            driver=None,
            energy_source=Source.EMULATED,
            latency_source=Source.EMULATED,
        )

    async def defaults(self) -> Mapping[str, Value]:
        """Return the server's defaults on this GPU, and the GPU's own limit and clock."""
        full = self._plan.full(self._plan.baseline)
        try:
            self._emulation.launch(full)
        except LaunchRefusedError as refusal:
            raise PreflightError(
                f"{self._emulation.model_name} does not start on {self._gpu.name} in "
                f"{self._plan.baseline_name}: {refusal}; set what it needs with --set, or "
                f"under `fixed:` in the search space (for example "
                f"{' or '.join(self._live.rules.memory_flags)})"
            ) from None
        self._start(self._live.clean(full))  # trial 0 is measured on it
        device = device_defaults(self._gpu)
        return {**self._emulation.defaults(), **device, **self._plan.load_defaults}

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Simulate; the noise depends on the study's seed and the trial only."""
        plan = self._plan
        full = plan.full(configuration)
        if reason := self._live.refusal(full):
            refused = Failure(FailureKind.CONFIGURATION, reason)
            return Evaluation(refused, None, (), Timing(CHANGE_S), is_virtual=True)
        if self.is_warm_for(configuration):
            return self._simulated(configuration, trial, None, plan.run_of(configuration))
        self._start(self._live.shared(full))
        return self._simulated(configuration, trial, LAUNCH_S, plan.run_of(configuration))

    def is_warm_for(self, configuration: Configuration) -> bool:
        """Say whether the warm server of the previous configuration could serve it."""
        launch = self._live.shared(self._plan.full(configuration))
        return self._launch is not None and self._launch.serves(launch)

    async def confirm(self, configuration: Configuration, repeat: int, traffic: int) -> Evaluation:
        """Simulate a clean launch; a few in a row share one."""
        launch = self._live.clean(self._plan.full(configuration))
        is_warm = self._launch is not None and self._launch.serves(launch)
        launch_s = None if is_warm and self._repeats < REPEATS_A_LAUNCH else LAUNCH_S
        if launch_s is not None:
            self._start(launch)
        self._repeats += 1
        run = self._plan.run_of(configuration, traffic)
        return self._simulated(configuration, _FIRST_REPEAT + repeat, launch_s, run)

    async def probe(self, configuration: Configuration, repeat: int, run: LoadRun) -> Evaluation:
        """Simulate another load."""
        launch_s = self._launch_if_cold(configuration)
        return self._simulated(configuration, _FIRST_REPEAT + repeat, launch_s, run)

    async def idle(
        self, configuration: Configuration, repeat: int, window_s: float = IDLE_S
    ) -> Evaluation:
        """Return the idle power of the engine; it has no noise."""
        before_s = self._launch_if_cold(configuration)
        full = self._plan.full(configuration)
        idle_w = self._emulation.idle_w(full, repeat)
        found = Measurement({IDLE_POWER: idle_w}, 0.0, window_s, Source.EMULATED, Source.EMULATED)
        took_s = (before_s or CHANGE_S) + window_s
        return Evaluation(found, None, (), Timing(took_s, before_s), is_virtual=True)

    async def switching(self, configuration: Configuration, repeat: int) -> Evaluation:
        """Return a start by the rules of the virtual clock; emulated engines do not sleep here."""
        full = self._plan.full(configuration)
        idle_w = self._emulation.idle_w(full, repeat)
        off_w = self._gpu.idle_w * self._live.rules.gpus_used(full)
        found = Switching(LAUNCH_S, LAUNCH_S * idle_w, off_w)
        self._start(self._live.clean(full))
        emulated = Source.EMULATED, Source.EMULATED
        result = Measurement(found.metrics(), 0.0, LAUNCH_S, *emulated)
        return Evaluation(result, None, (), Timing(LAUNCH_S, LAUNCH_S), is_virtual=True)

    def _start(self, launch: Launch) -> None:
        self._launch, self._repeats = launch, 0

    def _launch_if_cold(self, configuration: Configuration) -> float | None:
        """Launch unless the warm server can serve it; return the time of the launch, s."""
        if self.is_warm_for(configuration):
            return None
        self._start(self._live.shared(self._plan.full(configuration)))
        return LAUNCH_S

    def _simulated(
        self, configuration: Configuration, trial: int, launch_s: float | None, run: LoadRun
    ) -> Evaluation:
        before_s = CHANGE_S if launch_s is None else launch_s
        watch = SteadyWindow(run.window)
        try:
            full = self._plan.full(configuration)
            raw = self._emulation.run(full, run, watch, _noise_seed(self._seed, trial))
        except LaunchRefusedError as error:
            self._launch = None
            refused = Failure(FailureKind.CONFIGURATION, str(error))
            return Evaluation(refused, None, (), Timing(before_s, launch_s), is_virtual=True)
        return Evaluation(
            run.reduce(raw),
            raw,
            watch.warnings,
            Timing(before_s + raw.window_end_s, launch_s),
            is_virtual=True,
        )

    async def close(self) -> None:
        """Nothing to stop."""


def emulated_defaults(gpu: Gpu, load: Load) -> dict[str, Value]:
    """Return the value of every knob that is not set: vLLM's, the GPU's, the study's load."""
    return {**default_flags(gpu), **device_defaults(gpu), **load_defaults(load)}


def device_defaults(gpu: Gpu) -> dict[str, Value]:
    """Return the value of each device knob that is not set."""
    return {"power_limit_w": gpu.default_limit_w, "sm_clock_mhz": gpu.max_clock_mhz}


def _noise_seed(seed: int, trial: int) -> int:
    digest = hashlib.sha256(f"{seed}:{trial}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
