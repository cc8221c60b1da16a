"""Result of a trial: a measurement that lacks a required metric becomes a failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.evaluation.evaluator import Evaluation
from tuner.host.redaction import redacted
from tuner.measurement.intervals import intervals
from tuner.measurement.precision import achieved, imprecision
from tuner.measurement.reduce import short_window
from tuner.records import Failure, FailureKind, Measurement, RawRun
from tuner.slo import request_limits_ms
from tuner.spec.study import StudySpec


def without_secrets(evaluation: Evaluation) -> Evaluation:
    """Return it as it may be told: to the log, the store, Optuna and the terminal alike.

    What a server or its log said may hold secrets and control characters.
    """
    result = evaluation.result
    if isinstance(result, Failure):
        result = replace(result, reason=redacted(result.reason))
    elif result.ended_early is not None:
        result = replace(result, ended_early=redacted(result.ended_early))
    return replace(evaluation, result=result, warnings=tuple(map(redacted, evaluation.warnings)))


def require_metrics(spec: StudySpec, result: Measurement | Failure) -> Measurement | Failure:
    """Return the result of a trial; without a metric that the study needs it is a failure."""
    if isinstance(result, Failure):
        return result
    needed = [o.metric for o in spec.objectives] + [s.metric for s in spec.slos]
    missing = [m for m in needed if m not in result.metrics]
    if not missing:
        return result
    if result.ended_early is not None:
        return Failure(FailureKind.CONFIGURATION, result.ended_early)
    return Failure(FailureKind.UNSTABLE, f"the window gave no value for {', '.join(missing)}")


def all_warnings(
    spec: StudySpec, result: Measurement, raw: RawRun | None, warnings: Sequence[str]
) -> tuple[str, ...]:
    """Return a trial's warnings: also of intervals too wide, and of a window too short."""
    if raw is None or result.ended_early is not None:
        return tuple(warnings)
    short = short_window(raw)
    found = (*warnings, short) if short else tuple(warnings)
    precision = spec.window_plan.precision
    if precision is None:
        return found
    known = intervals(raw, request_limits_ms(spec.slos))
    return (*found, *imprecision(achieved(precision, result, known)))
