"""Believed energy: a window's energy counts only if the meter that measured it vouches for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tuner.devices.energy_window import WindowVerdict
from tuner.devices.meter import Meter, WindowContext
from tuner.evaluation.evaluator import IDLE_POWER
from tuner.measurement.reduce import window_energy_j
from tuner.records import Failure, FailureKind, Measurement, RawRun


async def judged(meter: Meter, raw: RawRun, context: WindowContext) -> WindowVerdict:
    """Have the meter judge the window of a run that has just ended."""
    start_s, end_s = raw.window_start_s, raw.window_end_s
    return await asyncio.to_thread(meter.judge, start_s, end_s, context)


def disbelief(verdict: WindowVerdict, log_path: Path | None = None) -> Failure | None:
    """Return why the energy of a window does not count; None if it does."""
    if verdict.valid:
        return None
    return Failure(
        FailureKind.BUSY,
        f"the energy of the window cannot be believed: {'; '.join(verdict.reasons)}",
        log_path,
    )


def idle_power(run: RawRun, verdict: WindowVerdict) -> Measurement | Failure:
    """Return the mean power of a window without requests, W, of all GPUs of the server."""
    if (failure := disbelief(verdict)) is not None:
        return failure
    start_s, end_s = run.window_start_s, run.window_end_s
    try:
        energy_j = window_energy_j(run.power, start_s, end_s)
    except ValueError as error:
        return Failure(FailureKind.INFRASTRUCTURE, str(error))
    mean_w = energy_j / (end_s - start_s)
    return Measurement({IDLE_POWER: mean_w}, start_s, end_s, run.latency_source, run.power.source)
