"""Task energy on one model and GPU: energy per request, against chat and a FLOPs estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analysis.load_text import resolved_load_text
from tuner.analysis.matching import candidates
from tuner.analysis.outcomes import baseline_of, emulated, kind_of_study, metric, ratio
from tuner.analysis.recommendation.recommend import Recommendation, recommend
from tuner.analysis.tasks.flops_estimate import FlopsBasis, flops_basis
from tuner.errors import NoFeasibleConfigurationError
from tuner.records import RequestState
from tuner.store import Store, StudyIdentity, TrialRow

CHAT = "chat"
_PER_REQUEST, _PER_TOKEN = "energy_per_request_j", "energy_per_output_token_j"


@dataclass(frozen=True, slots=True)
class TaskEnergy:
    """One workload's study. None is unknown.

    Attributes:
        load: how requests were offered, in words.
        prompt_tokens: mean of the requests that ended in the default's window.
        output_tokens: the same; J/request divided by J/token.
        default_j: energy per request of vLLM's default, J.
        recommended_j: of the recommended configuration, J.
        saving_percent: what that saves of the default's energy per token, image or second of
            video.
        estimated_j: per request, what an estimate from FLOPs says, J.
        token_multiplier: output tokens, over those of chat.
        energy_multiplier: J/request of the recommended configurations, over that of chat.
        estimate_ratio: the estimate over what the default used.
        note: why there is no recommendation.
    """

    workload: str
    study: str
    load: str
    emulated: tuple[str, ...]
    confirmed: bool
    default_meets_slo: bool | None
    prompt_tokens: float | None
    output_tokens: float | None
    default_j: float | None
    recommended_j: float | None
    saving_percent: float | None
    tied_with_default: bool | None
    estimated_j: float | None
    token_multiplier: float | None = None
    energy_multiplier: float | None = None
    estimate_ratio: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class TaskTable:
    """The tasks of one model on one GPU, chat first; `basis` is None if no estimate is possible."""

    model: str
    gpu: str
    tasks: tuple[TaskEnergy, ...]
    basis: FlopsBasis | None
    mfu: float


def task_tables(store: Store, model: str | None, mfu: float) -> list[TaskTable]:
    """Return a table for each GPU that the model was measured on, the newest first.

    Measured and emulated studies are kept apart; of several studies of a workload the newest
    counts that has a recommendation. Raises `UsageError` for a name that means no model.
    """
    groups: dict[tuple[str, ...], list[StudyIdentity]] = {}
    for study in candidates(store.identities(), model, None):
        sources = (study.energy_source.value, study.latency_source.value)
        groups.setdefault((study.gpu, *sources), []).append(study)
    return [_table(store, group, mfu) for group in groups.values()]


def _table(store: Store, studies: Sequence[StudyIdentity], mfu: float) -> TaskTable:
    first = studies[0]
    basis = flops_basis(first)
    of_workload: dict[str, list[StudyIdentity]] = {}
    for study in studies:
        of_workload.setdefault(study.workload_name, []).append(study)
    tasks = [_newest(store, same, basis, mfu) for same in of_workload.values()]
    tasks.sort(key=lambda task: (task.workload != CHAT, task.workload))
    chat = tasks[0] if tasks[0].workload == CHAT else None
    return TaskTable(
        first.model, first.gpu, tuple(_beside(task, chat) for task in tasks), basis, mfu
    )


def _newest(
    store: Store, studies: Sequence[StudyIdentity], basis: FlopsBasis | None, mfu: float
) -> TaskEnergy:
    """Return the task by the first study that recommends something, else by the first."""
    reasons = []
    for study in studies:
        try:
            found = recommend(store, study=study.name)
        except NoFeasibleConfigurationError as error:
            reasons.append(str(error))
            continue
        return _task(store, study, found.baseline, found, basis, mfu)
    default = baseline_of(store.trials(studies[0].name))
    return replace(_task(store, studies[0], default, None, basis, mfu), note=reasons[0])


def _task(
    store: Store,
    study: StudyIdentity,
    default: TrialRow | None,
    found: Recommendation | None,
    basis: FlopsBasis | None,
    mfu: float,
) -> TaskEnergy:
    best = None if found is None else found.best
    shown = None if found is None or best is None else found.summary_of(best)
    of_default = None if found is None or default is None else found.summary_of(default)
    prompt_tokens = output_tokens = None
    if kind_of_study(study).output.is_text:
        if default is not None:
            prompt_tokens = _prompt_tokens(store, study.name, default.number)
        output_tokens = ratio(metric(default, _PER_REQUEST), metric(default, _PER_TOKEN))
    trials = tuple(t for t in (default, best) if t is not None)
    estimated_j = None
    if basis is not None and prompt_tokens is not None and output_tokens is not None:
        estimated_j = basis.energy_j(prompt_tokens + output_tokens, mfu)
    return TaskEnergy(
        workload=study.workload_name,
        study=study.name,
        load=resolved_load_text(study, trials[-1].configuration) if trials else "unknown",
        emulated=emulated(study, trials),
        confirmed=shown is not None and shown.confirmed,
        default_meets_slo=None if of_default is None else of_default.meets_slo,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        default_j=metric(default, _PER_REQUEST),
        recommended_j=metric(best, _PER_REQUEST),
        saving_percent=None if shown is None else shown.saving_percent,
        tied_with_default=None if shown is None else shown.tied_with_default,
        estimated_j=estimated_j,
    )


def _beside(task: TaskEnergy, chat: TaskEnergy | None) -> TaskEnergy:
    """Add what a task is relative to chat, and to its own estimate."""
    return replace(
        task,
        token_multiplier=None if chat is None else ratio(task.output_tokens, chat.output_tokens),
        energy_multiplier=None if chat is None else ratio(task.recommended_j, chat.recommended_j),
        estimate_ratio=ratio(task.estimated_j, task.default_j),
    )


def _prompt_tokens(store: Store, study: str, trial: int) -> float | None:
    """Return the mean prompt of the requests that ended in a trial's window."""
    run = store.raw_run(study, trial)
    if run is None:
        return None
    counts = [
        request.prompt_tokens
        for request in run.requests
        if request.state is RequestState.DONE
        and run.window_start_s < request.ended_s <= run.window_end_s
    ]
    return float(np.mean(counts)) if counts else None
