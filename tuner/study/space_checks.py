"""Checks of a search space before anything is launched: what it would change, and what is left."""

from __future__ import annotations

import itertools
import math

from tuner.catalog.model import load_model
from tuner.configuration import MODEL, STEPS, THINKING, UNSET, Value
from tuner.errors import UsageError
from tuner.evaluation.factory import baseline_configuration, fixed_configuration
from tuner.load.workload import Workload
from tuner.measurement.quality.likeness import require_tools
from tuner.metrics import Output
from tuner.servers.registry import flag_rules
from tuner.spec.knobs import Choice
from tuner.spec.search_space import Parameter, SearchSpace
from tuner.spec.study import StudySpec

_MOST_LOOKED_AT = 200_000  # combinations of the knobs that relations read


def check_space(space: SearchSpace, spec: StudySpec, gpus: int | None) -> None:
    """Raise `UsageError` for a space that changes outputs unasked, or that relations leave empty.

    `gpus` is how many GPUs the study may use, None if that is not known.
    """
    if not spec.allow_output_changes:
        _require_same_outputs(space)
    _require_checkpoints(space, spec)
    _require_room_for_baseline(space, spec, gpus)
    if (relations := space.relations) and not _leaves_something(space, gpus):
        raise UsageError(
            f"search space '{space.name}': no configuration keeps its relations "
            f"({'; '.join(relations)})"
            + ("" if gpus is None else f" with {gpus} GPUs")
            + "; widen the knobs or loosen a relation"
        )


def check_workload(space: SearchSpace, spec: StudySpec, workload: Workload) -> None:
    """Raise `UsageError` for metrics that the workload's answers do not have, and for drafts.

    Drafts are those that a real server would make of random token ids.
    """
    _require_metrics(spec, workload)
    _require_levels(space, spec, workload)
    if STEPS in space.load and workload.spec.generation is None:
        raise UsageError(f"the knob '{STEPS}' is of images and videos; take --workload image")
    output = workload.spec.output
    if not output.is_text and spec.emulate is None and spec.allow_output_changes:
        require_tools(video=output is Output.VIDEO)
    rules = flag_rules()
    drafts = [name for _, name in space.settings() if rules.needs_text(name)]
    if drafts and spec.emulate is None and not workload.is_text:
        raise UsageError(
            f"workload '{workload.name}' sends random token ids, of which far more drafts are "
            f"accepted than of text, so {drafts[0]} cannot be judged by it; give --workload a "
            "trace of texts (`tuner workload import`), best with `stop: natural`"
        )


def _require_metrics(spec: StudySpec, workload: Workload) -> None:
    kind = workload.spec.kind
    asked = [*(slo.metric for slo in spec.slos), *(o.metric for o in spec.objectives)]
    if lacking := [name for name in asked if kind.lacks(name)]:
        own = ", ".join((kind.energy, kind.throughput, *kind.columns))
        raise UsageError(
            f"workload '{workload.name}' makes {kind.output.value}, which has no "
            f"{' and no '.join(lacking)}; it has {own}"
        )


def _require_levels(space: SearchSpace, spec: StudySpec, workload: Workload) -> None:
    """Raise `UsageError` if the knob `thinking` and the workload's levels do not fit."""
    knob, levels = space.load.get(THINKING), workload.spec.thinking_levels
    if knob is None:
        return
    if levels is None:
        raise UsageError(
            f"the knob '{THINKING}' needs a workload that says what its levels are "
            "(`thinking_levels`; the shipped workload 'thinking' has off, low and high)"
        )
    for level in knob.values():
        if level != UNSET:
            workload.spec.thinking_at(str(level))
    if spec.emulate is None and not workload.is_chat:
        raise UsageError(
            f"workload '{workload.name}' sends no chats, and only a chat can say how to think; "
            "give --workload a trace of messages (`tuner workload import`) with `thinking_levels`"
        )


def _require_same_outputs(space: SearchSpace) -> None:
    rules = flag_rules()
    changing = [
        name
        for _, name in space.settings()
        if name in (THINKING, STEPS) or rules.changes_outputs(name)
    ]
    if changing:
        raise UsageError(
            f"{' and '.join(changing)} may change the model's answers; "
            "--allow-output-changes searches such knobs, and the report then says how far the "
            "answers agree"
        )


def _require_checkpoints(space: SearchSpace, spec: StudySpec) -> None:
    """Check the checkpoints that are searched; the emulator has to know each of them."""
    knob = space.flags.get(MODEL)
    if knob is None:
        return
    if not isinstance(knob, Choice) or not all(isinstance(v, str) for v in knob.choices):
        raise UsageError(
            f"search space '{space.name}': the knob '{MODEL}' needs choices, names or folders of "
            f"checkpoints, and '{UNSET}' for the study's own model"
        )
    for name in knob.choices if spec.emulate is not None else ():
        if name != UNSET:
            load_model(str(name))


def _require_room_for_baseline(space: SearchSpace, spec: StudySpec, gpus: int | None) -> None:
    fixed = fixed_configuration(space, spec.baseline)
    own = baseline_configuration(space, spec.baseline)
    used = flag_rules().gpus_used(own.with_fixed(fixed))
    if gpus is not None and used > gpus:
        raise UsageError(f"the baseline takes {used} GPUs, and the study may use {gpus}")


def _leaves_something(space: SearchSpace, gpus: int | None) -> bool:
    """Say whether a combination of the knobs that the relations read keeps all of them."""
    read = space.names_in_relations
    related = [one for one in space.parameters if one.setting in read]
    others = {one.name: _parameter_values(one)[0] for one in space.parameters}
    needed = {one.under[0] for one in related if one.under is not None}
    varied = [one for one in space.parameters if one in related or one.name in needed]
    combinations = itertools.product(*(_parameter_values(one) for one in varied))
    for values in itertools.islice(combinations, _MOST_LOOKED_AT):
        parameters = {**others, **dict(zip((one.name for one in varied), values, strict=True))}
        if space.broken_relation(parameters, gpus) is None:
            return True
    return math.prod(len(_parameter_values(one)) for one in varied) > _MOST_LOOKED_AT


def _parameter_values(one: Parameter) -> list[Value]:
    return [one.knob.encode(value) for value in one.knob.values()]
