"""First points of a new study: the baseline, an older study's best, the emulator's front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tuner.catalog.gpu_names import emulated_gpu
from tuner.configuration import THINKING, Configuration, Value
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.spec.search_space import SearchSpace
from tuner.spec.study import StudySpec
from tuner.store import StudyIdentity
from tuner.study.proposals.emulated_prior import emulated_front, enqueue_prior
from tuner.study.proposals.proposals import Proposals
from tuner.study.proposals.start_points import parameters_of


def enqueue_older(
    proposals: Proposals,
    space: SearchSpace,
    older: Sequence[Configuration],
    defaults: Mapping[str, Value],
    note: Callable[[str], None],
) -> None:
    """Warm start: queue an older study's points that the search space contains."""
    found = [parameters_of(space, c, defaults) for c in older]
    fit = [parameters for parameters in found if parameters is not None]
    for parameters in fit:
        proposals.enqueue(parameters)
    message = f"{len(fit)} configurations of the older study are measured first"
    if left := len(found) - len(fit):
        message += f"; {left} are outside the search space"
    note(message)


def enqueue_levels(
    proposals: Proposals,
    space: SearchSpace,
    defaults: Mapping[str, Value],
    baseline: Configuration,
) -> None:
    """Queue the baseline at every other level of thinking: what thinking alone takes."""
    knob, own = space.load.get(THINKING), space.baseline_parameters(defaults, baseline)
    for level in () if knob is None else knob.values():
        if level != own[THINKING]:
            proposals.enqueue({**own, THINKING: level})


async def enqueue_emulated(
    proposals: Proposals,
    space: SearchSpace,
    spec: StudySpec,
    stored: StudyIdentity,
    plan: MeasurementPlan,
    defaults: Mapping[str, Value],
) -> str | None:
    """Queue the emulator's suggestions for a study in real time; return a message about them.

    None if the emulator does not know the GPU or the model, or the study does not ask for it.
    """
    gpu = emulated_gpu(stored.gpu)
    if gpu is None or spec.emulate is not None or spec.sampler != "gp":
        return None
    if stored.evaluation != "live":
        return None
    points = await emulated_front(spec, space, plan, gpu)
    return enqueue_prior(proposals, space, points, defaults, gpu)
