"""Evaluation on the emulator's virtual clock: no server, no waiting."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tuner.configuration import Configuration, Value
from tuner.emulator.hardware import Gpu
from tuner.emulator.launch_rules import LaunchRefusedError, default_flags
from tuner.emulator.model import ModelShape
from tuner.emulator.virtual import simulate
from tuner.errors import PreflightError
from tuner.measure.window import SteadyWindow
from tuner.records import Failure, FailureKind, Load, Source
from tuner.study.evaluator import Bench, Evaluation, Task, load_defaults, load_of

# Virtual seconds that a launch takes from the budget: weights, compilation, graph capture of an
# 8B model. It decides how many trials fit into `--hours`, no metric.
LAUNCH_S = 120.0


EMULATOR_VERSION = "emulator"


class VirtualEvaluator:
    """Runs the emulator's engine for each configuration."""

    needs_guardian = False

    def __init__(self, model: ModelShape, gpu: Gpu, task: Task, seed: int) -> None:
        self._model = model
        self._gpu = gpu
        self._task = task
        self._seed = seed

    async def prepare(self) -> Bench:
        """Say what is emulated."""
        return Bench(
            kind="virtual",
            server_version=EMULATOR_VERSION,
            gpu=self._gpu.name,
            driver=None,
            energy_source=Source.EMULATED,
            latency_source=Source.EMULATED,
        )

    async def defaults(self) -> Mapping[str, Value]:
        """Return vLLM's defaults on this GPU, and the GPU's own limit and clock."""
        result = await self.evaluate(Configuration(), 0)
        if isinstance(result.result, Failure) and result.raw is None:
            raise PreflightError(
                f"{self._model.name} does not start on {self._gpu.name} in vLLM's default "
                f"configuration: {result.result.reason}; set what it needs under `fixed:` in the "
                "search space (for example tensor_parallel_size or max_model_len)"
            )
        return emulated_defaults(self._gpu, task_load=self._task.load)

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Simulate; the noise depends on the study's seed and the trial only."""
        task = self._task
        watch = SteadyWindow(task.window)
        try:
            raw = simulate(
                self._model,
                self._gpu,
                task.whole(configuration),
                task.workload.requests(),
                load_of(configuration, task.load),
                watch,
                seed=_noise_seed(self._seed, trial),
            )
        except LaunchRefusedError as error:
            refused = Failure(FailureKind.CONFIGURATION, str(error))
            return Evaluation(refused, None, (), LAUNCH_S, is_virtual=True)
        warnings = () if watch.settled else ("the load had not settled when the window began",)
        elapsed_s = LAUNCH_S + raw.window_end_s
        return Evaluation(task.reduce(raw), raw, warnings, elapsed_s, is_virtual=True)

    async def close(self) -> None:
        """Nothing runs."""


def emulated_defaults(gpu: Gpu, task_load: Load) -> dict[str, Value]:
    """Return the value of every knob that is not set: vLLM's, the GPU's, the study's load."""
    device = {"power_limit_w": gpu.default_limit_w, "sm_clock_mhz": gpu.max_clock_mhz}
    return {**default_flags(gpu), **device, **load_defaults(task_load)}


def _noise_seed(seed: int, trial: int) -> int:
    digest = hashlib.sha256(f"{seed}:{trial}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
