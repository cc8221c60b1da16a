"""Idle power: what the GPUs of a loaded server use while no request comes."""

from __future__ import annotations

from tuner.evaluation.evaluator import IDLE_POWER
from tuner.measurement.reduce import window_energy_j
from tuner.records import Failure, FailureKind, Measurement, RawRun


def idle_power(run: RawRun) -> Measurement | Failure:
    """Return the mean power of the window, of all GPUs of the server."""
    start_s, end_s = run.window_start_s, run.window_end_s
    try:
        energy_j = window_energy_j(run.power, start_s, end_s)
    except ValueError as error:
        return Failure(FailureKind.INFRASTRUCTURE, str(error))
    mean_w = energy_j / (end_s - start_s)
    return Measurement({IDLE_POWER: mean_w}, start_s, end_s, run.latency_source, run.power.source)
