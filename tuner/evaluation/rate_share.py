"""Rate share: resolve `--request-rate 0.7x`, a share of the default configuration's capacity."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tuner.configuration import Configuration
from tuner.evaluation.capacity import capacity_window, default_capacity
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.factory import RunContext, configuration_knobs, make_evaluator
from tuner.evaluation.supervision import supervised
from tuner.spec.stored import Capacity
from tuner.spec.study import StudySpec


async def resolved_rate(
    spec: StudySpec, share: float, plan: MeasurementPlan, context: RunContext
) -> tuple[StudySpec, Capacity]:
    """Search for the capacity; return the spec with the share of it as its rate, requests/s.

    Raises `PreflightError` if no rate is sustained under the SLO.
    """
    window = capacity_window(spec.window_plan, spec.slos)
    context = replace(context, run_tag=f"{context.run_tag}-capacity")
    evaluator = await asyncio.to_thread(
        make_evaluator,
        spec,
        replace(plan, window=window, ends_early=True),
        configuration_knobs(Configuration()),
        context,
    )
    async with supervised(evaluator, context):
        capacity = await default_capacity(evaluator, spec.slos, window, context.listener.note)
    rate = capacity.share(share)
    context.listener.note(f"the load is {share:g} of it: {rate:g} requests/s")
    changed = {"request_rate": rate, "request_rate_share": None}
    return spec.model_copy(update=changed), capacity
