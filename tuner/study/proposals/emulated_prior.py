"""Emulated prior: the Pareto front of a short emulated search, as start points for a real study.

The emulator may be wrong about this machine, so its points are measured like any other. Only the
points enter the study, never an emulated number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import optuna

from tuner.catalog.gpu import Gpu
from tuner.configuration import Configuration, Value
from tuner.emulator.engine.power import PowerModel
from tuner.errors import PreflightError, UsageError
from tuner.evaluation.emulated.emulation import emulation_of
from tuner.evaluation.emulated.virtual import VirtualEvaluator
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.factory import space_knobs
from tuner.evaluation.launched.launch_sharing import LiveKnobs
from tuner.pareto import pareto_front, spread_order
from tuner.records import Measurement
from tuner.slo import meets_all
from tuner.spec.objective import costs
from tuner.spec.search_space import SearchSpace
from tuner.spec.study import StudySpec
from tuner.study.proposals.proposals import Proposals
from tuner.study.proposals.start_points import parameters_of

MOST_POINTS = 4
_EVALUATIONS = 24


async def emulated_front(
    spec: StudySpec, space: SearchSpace, plan: MeasurementPlan, gpu: Gpu
) -> list[Configuration]:
    """Return points spread over the emulated front, least first objective first.

    The list is empty if the emulator does not know the model or a knob, or if no point meets the
    SLOs.
    """
    evaluator = _evaluator(spec, space, plan, gpu)
    if evaluator is None:
        return []
    proposals = Proposals(
        optuna.storages.InMemoryStorage(),
        "prior",
        space,
        spec.slos,
        spec.objectives,
        "gp",
        spec.seed,
        gpus=gpu.max_gpus if spec.gpus is None else spec.gpus,
        baseline=plan.baseline,
        fixed=plan.fixed,
    )
    try:
        proposals.enqueue_baseline(await evaluator.defaults())
    except (PreflightError, UsageError):
        return []
    found: dict[tuple[float, ...], Configuration] = {}
    for _ in range(_EVALUATIONS):
        await asyncio.sleep(0)  # a virtual evaluation never waits, and signals arrive here
        proposal = proposals.ask()
        evaluation = await evaluator.evaluate(proposal.configuration, proposal.number)
        values = _told(spec, proposals, proposal.number, evaluation.result)
        if values is not None and not proposal.baseline:
            found[values] = proposal.configuration
    points = list(found)
    front = [points[i] for i in pareto_front(points)]
    return [found[front[i]] for i in spread_order(front, [])[:MOST_POINTS]]


def enqueue_prior(
    proposals: Proposals,
    space: SearchSpace,
    points: Sequence[Configuration],
    defaults: Mapping[str, Value],
    gpu: Gpu,
) -> str | None:
    """Queue the points; return a message about them, None if there are none."""
    found = [parameters_of(space, point, defaults) for point in points]
    for parameters in found:
        if parameters is not None:
            proposals.enqueue(parameters)
    if not points:
        return None
    shown = "; ".join(
        ", ".join(f"{knob}={value}" for knob, value in point.knobs().items()) for point in points
    )
    return (
        f"after the default, {len(points)} configurations are tried that the emulated {gpu.name} "
        f"suggests (emulated; they are measured like any other): {shown}"
    )


def _told(
    spec: StudySpec, proposals: Proposals, number: int, result: object
) -> tuple[float, ...] | None:
    """Tell a result; return its costs if it is feasible, else None."""
    needed = [o.metric for o in spec.objectives] + [s.metric for s in spec.slos]
    if not isinstance(result, Measurement) or any(m not in result.metrics for m in needed):
        proposals.tell_infeasible(number, "not on the emulator", crashed=False)
        return None
    proposals.tell_measured(number, result)
    if result.ended_early is not None or not meets_all(result.metrics, spec.slos):
        return None
    return costs(spec.objectives, result.metrics)


def _evaluator(
    spec: StudySpec, space: SearchSpace, plan: MeasurementPlan, gpu: Gpu
) -> VirtualEvaluator | None:
    knobs = space_knobs(space)
    flags = {*plan.fixed.flags, *plan.baseline.flags, *knobs.of("flags")}
    variables = [*plan.baseline.environment, *knobs.of("environment")]
    if variables:
        return None
    try:
        emulation = emulation_of(spec.model, gpu, plan.workload)
        emulation.check_flags(flags)
        for extreme in knobs.extremes:
            PowerModel.under(gpu, extreme.device)
    except UsageError:
        return None
    # variables that all configurations share choose none of them, and are not emulated
    plan = replace(plan, fixed=Configuration(plan.fixed.flags))
    return VirtualEvaluator(emulation, gpu, plan, spec.seed, LiveKnobs({}))
