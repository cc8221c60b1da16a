"""Calibration: fit an emulated GPU's factors to measured trials of a real one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.host.durable_files import replacing
from tuner.records import Failure, Source
from tuner.store import Store

if TYPE_CHECKING:
    from tuner.catalog.gpu import Gpu
    from tuner.catalog.model import ModelShape
    from tuner.emulator.calibration import Calibration
    from tuner.evaluation.evaluator import MeasurementPlan

_METRICS = ("output_throughput_tok_s", "p50_tpot_ms", "energy_per_output_token_j")
_FIGURES = ("throughput", "itl", "energy")  # of them, as in the catalog's stated errors
_LIKELY_MOST = 2.0  # nine in ten errors lie within about twice the mean one
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
class MeasuredTrial:
    """One measured trial and everything needed to emulate it."""

    study: str
    trial: int
    plan: MeasurementPlan
    model: ModelShape
    configuration: Configuration
    metrics: Mapping[str, float]


def calibrate_gpu(
    studies: Sequence[str], gpu_name: str, output: Path, store_url: str
) -> CalibratedGpu:
    """Fit the GPU to the studies' trials, and write it to `output`.

    Raises `UsageError` if a study, or the whole store, holds nothing to calibrate by, and, before
    the fit, if the file cannot be written.
    """
    from tuner.catalog.gpu import gpu_yaml, load_gpu

    gpu = load_gpu(gpu_name)
    if output.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--output '{output}': name a file that ends in .yaml")
    with Store.open(store_url, create=False) as store:
        names = list(studies) or [study.name for study in store.identities()]
        measured = [row for name in names for row in _some(store, name, bool(studies))]
    try:
        with replacing(output) as file:
            result = fitted(gpu, measured)
            file.write(gpu_yaml(_named(result, gpu, measured, output.stem)).encode())
    except OSError as error:
        raise UsageError(f"cannot write '{output}': {error}") from None
    return CalibratedGpu(output, len(measured), result)


def _named(result: Calibration, gpu: Gpu, measured: Sequence[MeasuredTrial], name: str) -> Gpu:
    """Return the fitted GPU with its name, what it was fitted to, and its likely errors."""
    used = ", ".join(dict.fromkeys(row.study for row in measured))
    source = f"{gpu.name}, calibrated to {len(measured)} measured trials of {used}. {gpu.source}"
    errors = {
        figure: _LIKELY_MOST * error
        for figure, error in zip(_FIGURES, result.held_out, strict=True)
    }
    return result.gpu.model_copy(update={"name": name, "source": source, "errors": errors})


def fitted(gpu: Gpu, measured: Sequence[MeasuredTrial]) -> Calibration:
    """Fit the GPU's factors to measured trials.

    Raises `UsageError` for fewer than three, and for one that does not run on the GPU as it is.
    """
    from tuner.emulator.calibration import calibrate

    def predict(candidate: Gpu, index: int) -> tuple[float, ...]:
        row = measured[index]
        try:
            return _fitted_metrics(predicted(row, candidate))
        except UsageError:
            if candidate == gpu:
                raise
            return (math.nan,) * len(_METRICS)  # too slow for what the real GPU kept up with

    return calibrate(gpu, [_fitted_metrics(row.metrics) for row in measured], predict)


def _fitted_metrics(metrics: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(metrics[metric] for metric in _METRICS)


def _some(store: Store, name: str, named: bool) -> list[MeasuredTrial]:
    """Return some usable trials, evenly over the study."""
    rows = list(measured_trials(store, name, named=named))
    chosen = -(-len(rows) // _MOST_PER_STUDY)
    return rows[:: max(chosen, 1)]


def measured_trials(store: Store, name: str, *, named: bool) -> Iterator[MeasuredTrial]:
    """Yield a study's usable trials; raises `UsageError` if one that is `named` cannot have any."""
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
    for trial in store.trials(name):
        values = {} if trial.measurement is None else trial.measurement.metrics
        if all(values.get(metric, 0.0) > 0.0 for metric in _METRICS):
            yield MeasuredTrial(name, trial.number, plan, model, trial.configuration, values)


def predicted(row: MeasuredTrial, gpu: Gpu) -> Mapping[str, float]:
    """Return the metrics of a trial's configuration on the emulated GPU, without noise.

    Raises `UsageError` if it does not run there.
    """
    from tuner.emulator.virtual import LaunchRefusedError, simulate
    from tuner.evaluation.evaluator import load_of
    from tuner.measurement.steady_window import SteadyWindow

    plan, load = row.plan, load_of(row.configuration, row.plan.load)
    try:
        raw = simulate(
            row.model,
            gpu,
            _with_effect(plan.full(row.configuration)),
            plan.traffic.compared_on(load),
            load,
            SteadyWindow(plan.window_for(row.configuration)),
            seed=0,
            noise=False,
        )
    except LaunchRefusedError as error:
        raise _not_emulated(row, gpu, str(error)) from None
    result = plan.reduce(raw)
    if isinstance(result, Failure):
        raise _not_emulated(row, gpu, result.reason)
    return result.metrics


def _with_effect(configuration: Configuration) -> Configuration:
    """Leave out flags that change nothing, such as `load_format`; the emulator refuses them."""
    from tuner.emulator.http.arguments import FLAGS_WITHOUT_EFFECT

    flags = {k: v for k, v in configuration.flags.items() if k not in FLAGS_WITHOUT_EFFECT}
    return replace(configuration, flags=flags)


def _not_emulated(row: MeasuredTrial, gpu: Gpu, reason: str) -> UsageError:
    return UsageError(
        f"study '{row.study}', trial {row.trial}: it ran, but the emulated {gpu.name} says:"
        f" {reason} Is that the GPU it ran on? Name another with --gpu, or other studies"
    )
