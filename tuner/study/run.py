"""Start or resume a study: settle its name, spec, search space and workload, then run it."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tuner.catalog.gpu import load_gpu
from tuner.catalog.yaml_files import validate
from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.evaluation.emulated.emulation import emulation_of, require_emulated
from tuner.evaluation.factory import fixed_configuration, space_knobs
from tuner.load.workload import Workload, load_workload
from tuner.measurement.quality.questions import read_questions
from tuner.spec.device_ranges import example_ranges, gpus_for, ranges_for
from tuner.spec.search_space import load_space
from tuner.spec.stored import spec_of
from tuner.spec.study import LONGEST_STUDY_NAME, StudySpec
from tuner.store import Store, StudyIdentity
from tuner.study.assembly import Run
from tuner.study.default_space import default_space
from tuner.study.defaults.windows import fitted_windows
from tuner.study.inputs.finding import InputFinder
from tuner.study.inputs.moved import NOT_MOVED, MovedTo
from tuner.study.listener import Listener
from tuner.study.proposals.start_points import points_to_start_with
from tuner.study.run_files import log_folder
from tuner.study.space_checks import check_space, check_workload

_NUMBER_BYTES = 8  # for what is added to a name that is taken


def check_names(spec: StudySpec) -> None:
    """Raise `UsageError` for unknown names in a spec; starts and stores nothing."""
    space = load_space(spec.space, example_ranges)
    check_space(space, spec, gpus_for(spec))
    workload = load_workload(spec.workload)
    check_workload(space, spec, workload)
    if spec.quality is not None:
        read_questions(Path(spec.quality))
    if spec.emulate is not None:
        emulation = emulation_of(spec.model, load_gpu(spec.emulate, spec.engine), workload)
        fixed, knobs = fixed_configuration(space, spec.baseline), space_knobs(space)
        require_emulated(
            emulation,
            [*fixed.flags, *knobs.of("flags")],
            [*fixed.environment, *knobs.of("environment")],
        )


async def start_study(
    spec: StudySpec,
    store: Store,
    listener: Listener,
    *,
    from_study: str | None = None,
    yes: bool = False,
) -> str:
    """Run a new study to the end of its budget; return its name.

    With `from_study`, the best configurations of that study are measured first. `yes` goes on
    where the baseline's measurement speaks against the request.

    Raises the error tree of `tuner.errors`; on cancellation everything started is stopped.
    """
    workload = load_workload(spec.workload)
    is_open = "space" not in spec.model_fields_set and workload.spec.output.is_text
    if is_open and spec.emulate is None and spec.base_url is None:
        chosen = await asyncio.to_thread(default_space, allowed=spec.allow_gpu_settings)
        if chosen.reason is not None:
            listener.note(chosen.reason)
        spec = spec.model_copy(update={"space": chosen.name})
    fitted = fitted_windows(spec, workload)
    if fitted.reason is not None:
        listener.note(fitted.reason)
    spec = fitted.spec
    space = load_space(spec.space, partial(ranges_for, spec))
    name = spec.study or _free_name(spec, workload, store)
    require_free_name(name, store)
    first: Sequence[Configuration] = ()
    if from_study is not None:
        store.study(from_study)  # raises for an unknown name
        old = store.trials(from_study)
        first = points_to_start_with(old, spec.slos, spec.objectives, spec.trials)
    run = Run(name, spec, space, workload, store, listener, yes=yes)
    await run.start(first)
    return name


async def resume_study(
    name: str,
    store: Store,
    listener: Listener,
    *,
    more_trials: int | None = None,
    more_hours: float | None = None,
    confirm: bool | None = None,
    checks: bool | None = None,
    loads: str | None = None,
    yes: bool = False,
    moved: MovedTo = NOT_MOVED,
) -> None:
    """Resume a study to the end of its budget, extended by `trials` or `hours` if given.

    `confirm` overrides whether the front is confirmed, `checks` whether what is recommended is
    checked, `loads` its operating points; None keeps the study's own. Checks that are asked for
    without a confirmation are of what is confirmed by now. `yes` is as for `start_study`. What the
    study read from files is taken from the store where it is gone.

    Raises `PreflightError` if the machine, server, model or search space has changed.
    """
    stored = store.study(name)
    spec = moved.applied_to(spec_of(stored))
    if more_trials is not None or more_hours is not None:
        spec = _with_more(spec, stored, more_trials, more_hours)
    checks_alone = confirm is False and checks is True
    if confirm is not None:
        spec = spec.model_copy(update={"confirm": confirm or checks_alone})
    if checks is not None:
        spec = spec.model_copy(update={"checks": checks})
    if loads is not None:
        spec = validate(None, {**spec.model_dump(), "loads": loads}, StudySpec, {"loads"})
    folder = log_folder(store.url, name) / "inputs"
    found = InputFinder(stored, store.files.of(name), folder).find(spec)
    for note in found.notes:
        listener.note(note)
    run = Run(
        name,
        found.spec,
        found.space,
        found.workload,
        store,
        listener,
        yes=yes,
        moved_from=None if found.spec.model == stored.model else stored.model,
        confirms=not checks_alone,
    )
    await run.resume()


def _with_more(
    spec: StudySpec, study: StudyIdentity, trials: int | None, hours: float | None
) -> StudySpec:
    """Return the spec with its budget extended beyond what was set or is already spent.

    A bound that is not given is dropped: it may already be spent, and the user wants more.
    """
    if hours is not None and not 0 < hours < math.inf:
        raise UsageError(f"--hours {hours:g}: the additional hours must be greater than 0")
    asked_hours = spec.hours or 0.0
    more = {
        "trials": None if trials is None else (spec.trials or 0) + trials,
        "hours": None if hours is None else max(asked_hours, study.spent_s / 3600.0) + hours,
    }
    return validate("the new budget", {**spec.model_dump(), **more}, StudySpec)


def require_free_name(name: str, store: Store) -> None:
    """Raise `UsageError` if the store has a study of this name."""
    if name in {study.name for study in store.identities()}:
        raise UsageError(
            f"there is a study '{name}' already; continue it with `tuner resume {name}`, or choose "
            "another --study"
        )


def usual_name(spec: StudySpec, workload: str) -> str:
    """Return the name of a study that says none, in an empty store: MODEL-WORKLOAD."""
    stem = f"{Path(spec.model).name}-{workload}".lower()
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem)
    return stem.encode()[: LONGEST_STUDY_NAME - _NUMBER_BYTES].decode(errors="ignore")


def _free_name(spec: StudySpec, workload: Workload, store: Store) -> str:
    """Return MODEL-WORKLOAD, with a number if that name is taken."""
    stem = usual_name(spec, workload.name)
    taken = {study.name for study in store.identities()}
    names = (stem if n == 1 else f"{stem}-{n}" for n in itertools.count(1))
    return next(name for name in names if name not in taken)
