"""Capacity search: the highest rate that the default configuration sustains under the SLO."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from tuner.configuration import Configuration
from tuner.errors import PreflightError
from tuner.evaluation.evaluator import Evaluation, Evaluator
from tuner.measurement.precision import Precision, watched_percentiles
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Failure, FailureKind, Measurement
from tuner.slo import Slo
from tuner.spec.stored import Capacity

FIRST_RATE = 1.0
_LEAST_REQUESTS = 8  # in a window; fewer are too few to decide
HIGHEST_RATE = 4096.0
_STEP = 2.0
_CLOSE_ENOUGH = 1.03  # ratio between the lowest missed and the highest sustained rate
_MIN_WINDOW_S = 30.0
_MAX_WINDOW_S = 180.0
# Only the SLO decides here: the precision of energy must not lengthen the window.
_ENERGY_SHARE = 0.25
_PERCENTILE_SHARE = 0.02

Sustains = Callable[[float], Awaitable[str | None]]


async def search(sustains: Sustains, lowest_rate: float) -> Capacity:
    """Find the capacity: double or halve the rate, then halve the bracket's ratio.

    Rates are in requests/s. `sustains` returns None for a sustained rate, else why it is not
    sustained. Raises `PreflightError` if even the lowest rate is not.
    """
    tries = 0

    async def misses(rate: float) -> str | None:
        nonlocal tries
        tries += 1
        return await sustains(rate)

    low, high, missed = None, None, None
    rate = max(FIRST_RATE, lowest_rate)
    while low is None or high is None:
        if (reason := await misses(rate)) is None:
            low, rate = rate, rate * _STEP
            if high is None and rate > HIGHEST_RATE:
                return Capacity(low, None, None, tries)
        else:
            high, missed, rate = rate, reason, rate / _STEP
            if low is None and rate < lowest_rate:
                raise PreflightError(
                    f"the default configuration does not sustain even {high:g} requests/s under "
                    f"the SLO: {reason}; relax the SLO, choose a lighter workload, or give a "
                    "--request-rate in requests/s"
                )
    while high / low > _CLOSE_ENOUGH:
        rate = (low * high) ** 0.5
        if (reason := await misses(rate)) is None:
            low = rate
        else:
            high, missed = rate, reason
    return Capacity(low, high, missed, tries)


async def default_capacity(
    evaluator: Evaluator, slos: tuple[Slo, ...], window: WindowPlan, note: Callable[[str], None]
) -> Capacity:
    """Find the default configuration's capacity on one warm server.

    `window` is the evaluator's window: it sets the lowest rate that can be decided.

    Raises `PreflightError` if it cannot be measured at all, or has no capacity under the SLO.
    """
    await evaluator.prepare()

    async def sustains(rate: float) -> str | None:
        reason = await _missed(evaluator, slos, rate)
        note(f"capacity: {rate:.3g} requests/s {'sustained' if reason is None else reason}")
        return reason

    found = await search(sustains, _LEAST_REQUESTS / window.longest_window_s)
    note(f"capacity: {found}")
    return found


async def _missed(evaluator: Evaluator, slos: tuple[Slo, ...], rate: float) -> str | None:
    """Measure the default configuration at a rate; return which SLO it misses, or None."""
    configuration = Configuration(load={"request_rate": rate})
    evaluation = await evaluator.evaluate(configuration, 0)
    if _may_be_chance(evaluation):
        evaluation = await evaluator.evaluate(configuration, 0)
    result = evaluation.result
    if isinstance(result, Measurement):
        return result.ended_early or _violated(result.metrics, slos)
    if evaluation.raw is not None and result.kind is FailureKind.CONFIGURATION:
        return result.reason
    log = f" (log: {result.log_path})" if result.log_path else ""
    raise PreflightError(
        f"the capacity of the default configuration could not be measured at {rate:.3g} "
        f"requests/s: {result.reason}{log}; fix it, or give a --request-rate in requests/s"
    )


def _may_be_chance(evaluation: Evaluation) -> bool:
    """Say whether a retry may succeed: the failure was not the configuration's."""
    result = evaluation.result
    return isinstance(result, Failure) and result.kind is not FailureKind.CONFIGURATION


def _violated(metrics: Mapping[str, float], slos: tuple[Slo, ...]) -> str | None:
    for slo in slos:
        value = metrics.get(slo.metric)
        if value is None:
            return f"no value for {slo.metric}"
        if slo.violation(value) > 0:
            return f"{slo.metric} is {value:.4g} (SLO: {slo})"
    return None


def capacity_window(plan: WindowPlan, slos: tuple[Slo, ...]) -> WindowPlan:
    """Return a window that ends as soon as it is clear whether the SLOs are met.

    A fixed length that the user set stays.
    """
    asked = plan.precision
    if asked is None:
        return plan
    longest_s = min(_MAX_WINDOW_S, asked.max_window_s)
    precision = Precision(
        min_window_s=min(_MIN_WINDOW_S, longest_s),
        max_window_s=longest_s,
        energy_share=_ENERGY_SHARE,
        percentile_share=min(_PERCENTILE_SHARE, asked.percentile_share),
        percentiles=watched_percentiles(slos),
        bounds=slos,
    )
    return replace(plan, precision=precision)
