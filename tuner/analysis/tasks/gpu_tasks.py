"""The tasks of one GPU, each by its own model: energy against chat, and what is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.analysis.deployment.checks import load_value
from tuner.analysis.load_text import resolved_load_text, studied_load
from tuner.analysis.outcomes import emulated, energy_j, kind_of_study, metric, ratio
from tuner.analysis.recommendation.recommend import Recommendation, recommend
from tuner.analysis.tasks.task_energy import CHAT
from tuner.analysis.trial_summary import saving_percent
from tuner.errors import NoFeasibleConfigurationError, TunerError, UsageError
from tuner.load.workload import load_workload
from tuner.metrics import TEXT, Output, OutputKind
from tuner.records import Source
from tuner.spec.stored import StoredSpec
from tuner.store import Store, StudyIdentity, TrialRow

_ORDER = (CHAT, "code", "image", "video", "reasoning")
_PER_REQUEST = "energy_per_request_j"


@dataclass(frozen=True, slots=True)
class GpuTask:
    """A task's recommended configuration, its energy per request beside chat's; None is unknown.

    Attributes:
        emulated: which of energy and latency are emulated; empty if all was measured.
        output: `text`, `image` or `video`.
        amount: how many tokens, images or seconds of video a request gets.
        steps: of the sampler, for images and videos.
        default_j: energy per request of the default, J; `recommended_j` of what is recommended.
        energy_multiplier: `recommended_j` over that of chat.
        step_multiplier: passes of the model in a row, over those of chat: tokens or steps.
        load_headroom_percent: how much more load the recommended configuration takes.
        saving_percent: of the energy per token, image or second of video, against the default.
    """

    task: str
    model: str
    study: str
    load: str
    emulated: tuple[str, ...]
    output: str
    amount: float | None
    steps: int | None
    default_j: float | None
    recommended_j: float | None
    load_headroom_percent: float | None
    saving_percent: float | None
    tied_with_default: bool | None
    energy_multiplier: float | None = None
    step_multiplier: float | None = None


@dataclass(frozen=True, slots=True)
class GpuTasks:
    """The tasks of one GPU in a fixed order: chat, code, image, video, reasoning, then others."""

    gpu: str
    tasks: tuple[GpuTask, ...]
    notes: tuple[str, ...]


def gpu_tasks(store: Store, gpu: str) -> GpuTasks:
    """Return each task's newest study on a GPU that recommends something, measured ones first.

    Raises `UsageError` for a name that no study's GPU has in it, or several.
    """
    studies = _on(store.identities(), gpu)
    of_task: dict[str, list[StudyIdentity]] = {}
    for study in studies:
        of_task.setdefault(study.workload_name, []).append(study)
    tasks: list[GpuTask] = []
    notes: list[str] = []
    for name in sorted(of_task, key=lambda n: (_ORDER.index(n) if n in _ORDER else 99, n)):
        found = _first(store, of_task[name], notes)
        if found is not None:
            tasks += [_task(found), *_more_thinking(found)]
    chat = next((task for task in tasks if task.task.partition(",")[0] == CHAT), None)
    shown = tuple(_beside(task, chat) for task in tasks)
    return GpuTasks(studies[0].gpu, shown, tuple(notes))


def _on(studies: Sequence[StudyIdentity], gpu: str) -> list[StudyIdentity]:
    names = sorted({s.gpu for s in studies})
    same = [name for name in names if name.lower() == gpu.lower()]
    found = same or [name for name in names if gpu.lower() in name.lower()]
    if len(found) != 1:
        what = f"may be any of {', '.join(found)}" if found else "is no GPU of a study here"
        raise UsageError(f"--gpu {gpu}: {what}; the store holds: {', '.join(names) or 'none'}")
    chosen = [s for s in studies if s.gpu == found[0]]
    chosen.sort(key=lambda s: s.created_at, reverse=True)
    return sorted(chosen, key=lambda s: (_is_emulated(s), not s.is_finished))


def _is_emulated(study: StudyIdentity) -> bool:
    return Source.EMULATED in (study.energy_source, study.latency_source)


def _first(
    store: Store, studies: Sequence[StudyIdentity], notes: list[str]
) -> Recommendation | None:
    """Return the first recommendation; what has none is noted if no other study has one."""
    reasons = []
    for study in studies:
        try:
            return recommend(store, study=study.name)
        except NoFeasibleConfigurationError as error:
            reasons.append(str(error))
    notes.extend(reasons[:1])
    return None


def _task(found: Recommendation) -> GpuTask:
    study, best, default = found.study, found.best, found.baseline
    kind, shown = kind_of_study(study), found.summary_of(best)
    trials = tuple(t for t in (default, best) if t is not None)
    per_request = metric(best, _PER_REQUEST)
    return GpuTask(
        task=_named(study.workload_name, _own_level(found) if found.levels else None),
        model=study.model,
        study=study.name,
        load=resolved_load_text(study, best.configuration),
        emulated=emulated(study, trials),
        output=kind.output.value,
        amount=ratio(per_request, _unit_j(best, kind)),
        steps=None if kind.output.is_text else best.configuration.steps or _steps(study),
        default_j=metric(default, _PER_REQUEST),
        recommended_j=per_request,
        load_headroom_percent=_load_headroom_percent(found),
        saving_percent=shown.saving_percent,
        tied_with_default=shown.tied_with_default,
    )


def _unit_j(trial: TrialRow, kind: OutputKind) -> float | None:
    """Return the energy of a token, also of what counts by answers, an image, or a second, J."""
    return metric(trial, TEXT.energy) if kind.output.is_text else energy_j(trial)


def _more_thinking(found: Recommendation) -> list[GpuTask]:
    """Return a task for each level of thinking but the recommended one: extended reasoning."""
    task, own = replace(_task(found), task=found.study.workload_name), _own_level(found)
    return [
        replace(
            task,
            task=_named(task.task, one.level),
            amount=one.tokens,
            default_j=one.unchanged_j,
            recommended_j=one.energy_per_answer_j,
            load_headroom_percent=None,
            saving_percent=saving_percent(one.energy_per_answer_j, one.unchanged_j),
            tied_with_default=None,
        )
        for one in found.levels
        if one.level != own
    ]


def _own_level(found: Recommendation) -> str | None:
    return found.best.configuration.thinking or StoredSpec.of(found.study).default_level


def _named(workload: str, level: str | None) -> str:
    return workload if level is None else f"{workload}, {level}"


def _beside(task: GpuTask, chat: GpuTask | None) -> GpuTask:
    if chat is None:
        return task
    passes = task.amount if Output(task.output).is_text else task.steps
    return replace(
        task,
        energy_multiplier=ratio(task.recommended_j, chat.recommended_j),
        step_multiplier=ratio(passes, chat.amount),
    )


def _steps(study: StudyIdentity) -> int | None:
    """Return the sampler's steps; None if the workload has changed or is gone."""
    try:
        workload = load_workload(StoredSpec.of(study).workload or study.workload_name)
    except TunerError:
        return None
    asked = workload.spec.generation
    return None if asked is None or workload.sha256 != study.workload_sha256 else asked.steps


def _load_headroom_percent(found: Recommendation) -> float | None:
    known = found.checks_of(found.best).headroom
    studied = studied_load(found.study, found.best.configuration)
    if known is None or known.holds is None or studied is None:
        return None
    return 100.0 * (known.holds / load_value(studied) - 1.0)
