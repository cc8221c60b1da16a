"""Find the headroom: measure loads until the highest that holds is known to 5 %."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from tuner.analysis.deployment.headroom import Headroom, Probe, headroom_of, next_load
from tuner.configuration import Configuration
from tuner.evaluation.evaluator import LoadRun, MeasurementPlan
from tuner.records import Load

_LEAST_REQUESTS = 300.0  # in a window: the 99th percentile then has three beyond it
_LONGEST_WINDOW_S = 900.0


async def find_headroom(
    measure: Callable[[float], Awaitable[float | None]], first: float, *, whole: bool = False
) -> Headroom:
    """Find the highest load at which the SLOs hold: at most six loads, `first` first.

    `measure` returns the margin of a load, or None to stop. The loads depend only on what it
    returned, so a search that was killed comes to the same end if `measure` answers from the store.
    `whole` is for a closed loop, whose loads are whole numbers.
    """
    probes: list[Probe] = []
    while (load := next_load(probes, first, whole=whole)) is not None:
        margin = await measure(load)
        if margin is None:
            break
        probes.append(Probe(load, margin))
    return headroom_of(probes)


def headroom_run(
    plan: MeasurementPlan, load: Load, traffic: int, configuration: Configuration | None = None
) -> LoadRun:
    """Return the measurement of a load on a stretch of unseen traffic, the same for every load.

    It is as long as those of the confirmation, and long enough for a 99th percentile. A load that
    clearly misses an SLO is cut short. `configuration` says how requests ask: its
    thinking and steps.
    """
    asked = Configuration() if configuration is None else configuration
    window = plan.unseen_window or plan.window
    if load.request_rate is not None:
        wanted_s = min(_LEAST_REQUESTS / load.request_rate, _LONGEST_WINDOW_S)
        window_s = max(window.longest_window_s, wanted_s)
        window = replace(window, precision=None, window_s=window_s)
    return LoadRun(
        requests=partial(plan.traffic.requests, load, traffic, asked.thinking, asked.steps),
        load=load,
        window=replace(window, slos=plan.slos),
        reduce=plan.reduce,
    )
