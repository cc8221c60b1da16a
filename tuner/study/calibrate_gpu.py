"""Calibration: fit an emulated GPU's factors to measured trials of a real one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.records import Failure, Source
from tuner.store import Store

if TYPE_CHECKING:
    from tuner.catalog.gpu import Gpu
    from tuner.catalog.model import ModelShape
    from tuner.emulator.calibration import Calibration
    from tuner.evaluation.evaluator import MeasurementPlan

_METRICS = ("output_throughput_tok_s", "p50_tpot_ms", "energy_per_output_token_j")
_MOST_PER_STUDY = 12  # evenly over the study: each is simulated eight times


@dataclass(frozen=True, slots=True)
class CalibratedGpu:
    """The file of a corrected GPU, and how wrong the emulator was before and after."""

    file: Path
    measurements: int
    result: Calibration

    def errors(self) -> list[tuple[str, float, float, float]]:
        """Return each metric with its mean error before, after, and held out, as shares of 1."""
        r = self.result
        return list(zip(_METRICS, r.before, r.after, r.held_out, strict=True))


@dataclass(frozen=True, slots=True)
class _Measured:
    """One measured trial and everything needed to emulate it."""

    study: str
    trial: int
    plan: MeasurementPlan
    model: ModelShape
    configuration: Configuration
    metrics: tuple[float, ...]


def calibrate_gpu(
    studies: Sequence[str], gpu_name: str, output: Path, store_url: str
) -> CalibratedGpu:
    """Fit the GPU to the studies' trials, and write it to `output`.

    Raises `UsageError` if a study, or the whole store, holds nothing to calibrate by.
    """
    from tuner.catalog.gpu import load_gpu, save_gpu
    from tuner.emulator.calibration import calibrate

    gpu = load_gpu(gpu_name)
    if output.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--output '{output}': name a file that ends in .yaml")
    with Store.open(store_url, create=False) as store:
        names = list(studies) or [summary.identity.name for summary in store.studies()]
        measured = [row for name in names for row in _of_study(store, name, bool(studies))]

    def predict(candidate: Gpu, index: int) -> tuple[float, ...]:
        return _predicted(measured[index], candidate)

    result = calibrate(gpu, [row.metrics for row in measured], predict)
    used = ", ".join(dict.fromkeys(row.study for row in measured))
    source = f"{gpu.name}, calibrated to {len(measured)} measured trials of {used}. {gpu.source}"
    save_gpu(result.gpu.model_copy(update={"name": output.stem, "source": source}), output)
    return CalibratedGpu(output, len(measured), result)


def _of_study(store: Store, name: str, named: bool) -> Iterator[_Measured]:
    """Yield a study's usable trials; a study that the user named must have some."""
    from tuner.catalog.model import load_model
    from tuner.evaluation.factory import fixed_configuration, measurement_plan
    from tuner.load.workload import load_workload
    from tuner.spec.device_ranges import example_ranges
    from tuner.spec.search_space import load_space
    from tuner.spec.stored import spec_of

    identity = store.study(name)
    real = (identity.latency_source, identity.energy_source) == (Source.MEASURED, Source.MEASURED)
    if identity.evaluation != "live" or not real:
        if named:
            raise UsageError(
                f"study '{name}' was not measured on a GPU with vLLM launched by the tuner"
                f" ({identity.evaluation}, latency {identity.latency_source}, energy"
                f" {identity.energy_source}): there is nothing to calibrate by"
            )
        return
    spec = spec_of(identity)
    fixed = fixed_configuration(load_space(spec.space, example_ranges), spec.baseline)
    plan = measurement_plan(spec, load_workload(spec.workload), fixed)
    model = load_model(spec.model)
    rows = []
    for trial in store.trials(name):
        values = {} if trial.measurement is None else trial.measurement.metrics
        if all(values.get(metric, 0.0) > 0.0 for metric in _METRICS):
            metrics = tuple(values[metric] for metric in _METRICS)
            rows.append(_Measured(name, trial.number, plan, model, trial.configuration, metrics))
    chosen = -(-len(rows) // _MOST_PER_STUDY)
    yield from rows[:: max(chosen, 1)]


def _predicted(row: _Measured, gpu: Gpu) -> tuple[float, ...]:
    """Emulate a trial's configuration under its load, without noise."""
    from tuner.emulator.virtual import LaunchRefusedError, simulate
    from tuner.evaluation.evaluator import load_of
    from tuner.measurement.steady_window import SteadyWindow

    plan = row.plan
    try:
        raw = simulate(
            row.model,
            gpu,
            plan.full(row.configuration),
            plan.workload.requests(),
            load_of(row.configuration, plan.load),
            SteadyWindow(plan.window_for(row.configuration)),
            seed=0,
            noise=False,
        )
    except LaunchRefusedError as error:
        raise _not_emulated(row, gpu, str(error)) from None
    result = plan.reduce(raw)
    if isinstance(result, Failure):
        raise _not_emulated(row, gpu, result.reason)
    return tuple(result.metrics[metric] for metric in _METRICS)


def _not_emulated(row: _Measured, gpu: Gpu, reason: str) -> UsageError:
    return UsageError(
        f"study '{row.study}', trial {row.trial}: it ran, but the emulated {gpu.name} says:"
        f" {reason} Is that the GPU it ran on? Name another with --gpu, or other studies"
    )
