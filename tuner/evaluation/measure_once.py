"""Single measurement: one configuration, without study, search or store."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.configuration import Configuration
from tuner.errors import PreflightError
from tuner.evaluation.evaluator import Testbed, load_of
from tuner.evaluation.factory import (
    RunContext,
    configuration_knobs,
    make_evaluator,
    measurement_plan,
)
from tuner.evaluation.rate_share import resolved_rate
from tuner.evaluation.supervision import supervised
from tuner.load.workload import load_workload
from tuner.measurement.intervals import Interval, intervals
from tuner.measurement.listener import NOBODY, LoadListener
from tuner.measurement.precision import Achieved, achieved, imprecision
from tuner.measurement.reduce import short_window
from tuner.records import Failure, Load, Measurement, Source
from tuner.slo import request_limits_ms
from tuner.spec.emulated_errors import emulated_errors
from tuner.spec.study import StudySpec


@dataclass(frozen=True, slots=True)
class MeasuredOnce:
    """A measurement with its testbed, configuration and load."""

    testbed: Testbed
    configuration: Configuration
    load: Load
    measurement: Measurement
    intervals: Mapping[str, Interval]  # 95 %, of the metrics for which the window is long enough
    precision: tuple[Achieved, ...]  # of the metrics with a target; none for a fixed window
    warnings: tuple[str, ...]
    emulated_errors: Mapping[str, float]  # of emulated values, as shares of them, by metric


async def measure_once(
    spec: StudySpec, configuration: Configuration, listener: LoadListener = NOBODY
) -> MeasuredOnce:
    """Measure; `listener` receives the progress of the load and messages for the user.

    Raises `PreflightError` with the reason if the configuration fails.
    """
    workload = load_workload(spec.workload)
    plan = measurement_plan(spec, workload, Configuration())
    folder = Path(tempfile.mkdtemp(prefix="tuner-"))
    context = RunContext(f"measure-{secrets.token_hex(4)}", folder, spec.access, listener)
    if (share := spec.request_rate_share) is not None:
        spec, _ = await resolved_rate(spec, share, plan, context)
        plan = measurement_plan(spec, workload, Configuration())
    evaluator = make_evaluator(spec, plan, configuration_knobs(configuration), context)
    async with supervised(evaluator, context):
        testbed = await evaluator.prepare()
        evaluation = await evaluator.evaluate(configuration, 0)
    result = evaluation.result
    limits_ms = request_limits_ms(spec.slos)
    if isinstance(result, Failure):
        log = f" (log: {result.log_path})" if result.log_path else ""
        raise PreflightError(f"no measurement: {result.reason}{log}")
    shutil.rmtree(folder, ignore_errors=True)  # of a failure a log in it was named
    known = {} if evaluation.raw is None else intervals(evaluation.raw, limits_ms)
    reached: tuple[Achieved, ...] = ()
    if plan.window.precision is not None:
        reached = achieved(plan.window.precision, result, known)
    short = None if evaluation.raw is None else short_window(evaluation.raw)
    warnings = (*evaluation.warnings, *([short] if short else []), *imprecision(reached))
    load = load_of(configuration, plan.load)
    errors = emulated_errors(
        spec.model_dump(),
        energy=result.energy_source is Source.EMULATED,
        latency=result.latency_source is Source.EMULATED,
    )
    return MeasuredOnce(testbed, configuration, load, result, known, reached, warnings, errors)
