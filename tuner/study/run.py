"""Start or resume a study: lock, log, evaluator, search, confirmation."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tuner.catalog.gpu import load_gpu
from tuner.catalog.gpu_names import emulated_gpu
from tuner.catalog.model import load_model
from tuner.catalog.yaml_files import validate
from tuner.configuration import Configuration, Value
from tuner.errors import OperatorNeededError, TunerError, UsageError
from tuner.evaluation.evaluator import Evaluator, MeasurementPlan
from tuner.evaluation.factory import (
    RunContext,
    fixed_configuration,
    make_evaluator,
    measurement_plan,
    space_knobs,
)
from tuner.evaluation.rate_share import resolved_rate
from tuner.evaluation.supervision import supervised
from tuner.host.process import boot_id
from tuner.host.state_folder import state_folder
from tuner.load.workload import Workload, load_workload
from tuner.spec.device_ranges import example_ranges, ranges_for
from tuner.spec.search_space import SearchSpace, load_space
from tuner.spec.stored import Capacity, spec_of
from tuner.spec.study import StudySpec
from tuner.store import Store, StudyIdentity, TrialOwner, study_lock
from tuner.store.address import file_of, parse_address
from tuner.store.faults import StoreBusyError, StoreFullError
from tuner.store.log.log_records import LoggedStudy
from tuner.store.log.measurement_log import MeasurementLog
from tuner.store.log.now_file import NowFile
from tuner.store.upkeep.file_systems import require_local
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.default_space import default_space
from tuner.study.durability.backups import Backups
from tuner.study.durability.durable_evaluator import (
    DurableEvaluator,
    Gate,
    StoreTimeouts,
    opened_log,
    retry_store_faults,
)
from tuner.study.durability.recovery import recover
from tuner.study.identity import identity_of, require_same
from tuner.study.listener import Listener
from tuner.study.loop import StudyRun
from tuner.study.proposals.emulated_prior import emulated_front, enqueue_prior
from tuner.study.proposals.memory_fit import fitting
from tuner.study.proposals.proposals import Proposals
from tuner.study.proposals.start_points import parameters_of, points_to_start_with
from tuner.study.study_log import LoggedListener, StudyLog


def check_names(spec: StudySpec) -> None:
    """Raise `UsageError` for unknown names in a spec; starts and stores nothing."""
    load_space(spec.space, example_ranges)
    load_workload(spec.workload)
    if spec.emulate is not None:
        load_gpu(spec.emulate)
        load_model(spec.model)


async def start_study(
    spec: StudySpec, store: Store, listener: Listener, *, from_study: str | None = None
) -> str:
    """Run a new study to the end of its budget; return its name.

    With `from_study`, the best configurations of that study are measured first.

    Raises the error tree of `tuner.errors`; on cancellation everything started is stopped.
    """
    if "space" not in spec.model_fields_set and spec.emulate is None and spec.base_url is None:
        chosen = await asyncio.to_thread(default_space, allowed=spec.allow_gpu_settings)
        if chosen.reason is not None:
            listener.note(chosen.reason)
        spec = spec.model_copy(update={"space": chosen.name})
    space = load_space(spec.space, partial(ranges_for, spec))
    workload = load_workload(spec.workload)
    name = spec.study or _free_name(spec, workload, store)
    if name in {s.identity.name for s in store.studies()}:
        raise UsageError(
            f"there is a study '{name}' already; continue it with `tuner resume {name}`, or choose "
            "another --study"
        )
    first: Sequence[Configuration] = ()
    if from_study is not None:
        store.study(from_study)  # raises for an unknown name
        old = store.trials(from_study)
        first = points_to_start_with(old, spec.slos, spec.objectives, spec.trials)
    run = _Run(name, spec, space, workload, store, listener, first)
    await run.go(new=True)
    return name


async def resume_study(
    name: str,
    store: Store,
    listener: Listener,
    *,
    more_trials: int | None = None,
    more_hours: float | None = None,
    confirm: bool | None = None,
) -> None:
    """Resume a study to the end of its budget, extended by `trials` or `hours` if given.

    `confirm` overrides whether the front is confirmed; None keeps the study's own setting.

    Raises `PreflightError` if the machine, server, model or search space has changed.
    """
    spec = spec_of(store.study(name))
    if more_trials is not None or more_hours is not None:
        spec = _with_more(spec, store.study(name), more_trials, more_hours)
    if confirm is not None:
        spec = spec.model_copy(update={"confirm": confirm})
    run = _Run(
        name,
        spec,
        load_space(spec.space, partial(ranges_for, spec)),
        load_workload(spec.workload),
        store,
        listener,
    )
    await run.go(new=False)


def log_folder(store: Store, study: str) -> Path:
    """Return the folder of the servers' logs: beside the store's file, else under `results/`."""
    path = file_of(parse_address(store.url))
    return ((Path("results") if path is None else path.parent) / "logs" / study).absolute()


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


def _free_name(spec: StudySpec, workload: Workload, store: Store) -> str:
    """Return MODEL-WORKLOAD, with a number if that name is taken."""
    stem = f"{Path(spec.model).name}-{workload.name}".lower()
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem)
    taken = {s.identity.name for s in store.studies()}
    names = (stem if n == 1 else f"{stem}-{n}" for n in itertools.count(1))
    return next(name for name in names if name not in taken)


class _Run:
    """The parts of one run, acquired and released in order."""

    def __init__(
        self,
        name: str,
        spec: StudySpec,
        space: SearchSpace,
        workload: Workload,
        store: Store,
        listener: Listener,
        first: Sequence[Configuration] = (),
    ) -> None:
        self._first = first
        self._name = name
        self._spec = spec
        self._space = space
        self._workload = workload
        self._store = store
        folder = log_folder(store, name)
        self._study_log = StudyLog(folder / "study.jsonl")
        self._log = MeasurementLog(store.log_path(name, state_folder()))
        self._now_file = NowFile(store.url, name)
        self._listener: Listener = LoggedListener(listener, self._study_log, self._now_file)
        self._owner = this_process(f"{name}-{secrets.token_hex(4)}")
        self._capacity: Capacity | None = None  # if the load is a share of it
        self._context = RunContext(self._owner.run_tag, folder, spec.access, self._listener)

    async def go(self, *, new: bool) -> None:
        """Run under the study's lock, and clean up."""
        if self._store.path is not None:
            require_local(self._store.path)
        with (
            study_lock(self._store.url, self._name),
            self._store.optuna_faults(),
            opened_log(self._log, self._store.shown),
            closing(self._study_log),
            closing(self._now_file),
        ):
            try:
                await self._go(new=new)
            except BaseException as error:
                is_signal = isinstance(error, asyncio.CancelledError)
                told = "interrupted" if is_signal else f"{type(error).__name__}: {error}"
                self._study_log.write("stopped", reason=told)
                if isinstance(error, OperatorNeededError):
                    self._tell_in_the_morning(error)
                raise
            self._study_log.write("finished")

    def _tell_in_the_morning(self, fault: OperatorNeededError) -> None:
        """Add why the run stopped to the study's events, if the store can be written."""
        if not isinstance(fault, StoreBusyError | StoreFullError):
            with suppress(TunerError):
                self._store.add_event(self._name, "stopped", str(fault))

    async def _go(self, *, new: bool) -> None:
        if (share := self._spec.request_rate_share) is not None:
            self._spec, self._capacity = await resolved_rate(
                self._spec, share, self._plan(), self._context
            )
        evaluator = await asyncio.to_thread(  # it may take a minute to ask vLLM for its flags
            make_evaluator,
            self._spec,
            self._plan(),
            space_knobs(self._space),
            self._context,
        )
        async with supervised(evaluator, self._context):
            testbed = await evaluator.prepare()
            defaults = await evaluator.defaults() if new else {}
            identity = identity_of(
                self._name, self._spec, self._space, self._workload, testbed, self._capacity
            )
            self._study_log.write("bench", **dataclasses.asdict(testbed))
            if new:
                self._space.baseline_parameters(dict(defaults))  # raises before the study is stored
                self._store.create_study(identity)
                self._put_log_aside()
                if self._capacity is not None:
                    self._store.add_event(self._name, "capacity", str(self._capacity))
            else:
                require_same(self._store.study(self._name), identity)
                spec = self._spec
                self._store.set_budget(self._name, trials=spec.trials, hours=spec.hours)
            stored = self._store.study(self._name)
            self._log_study(stored, defaults)
            await self._loop(evaluator, defaults)

    def _plan(self) -> MeasurementPlan:
        plan = measurement_plan(self._spec, self._workload, fixed_configuration(self._space))
        return dataclasses.replace(plan, ends_early=True)

    async def _loop(self, evaluator: Evaluator, defaults: Mapping[str, Value]) -> None:
        proposals = Proposals(
            self._store.optuna_storage(),
            self._name,
            self._space,
            self._spec.slos,
            self._spec.objectives,
            self._spec.sampler,
            self._spec.seed,
            evaluator.is_warm_for,
            fitting(
                self._spec.model,
                self._store.study(self._name).gpu,
                fixed_configuration(self._space),
            ),
        )
        if not proposals.has_baseline:
            defaults = defaults or await evaluator.defaults()
            proposals.enqueue_baseline(defaults)
            self._enqueue_first(proposals, defaults)
            await self._enqueue_prior(proposals, defaults)
        kept = self._kept(evaluator)
        confirmation = self._confirmation(kept) if self._spec.confirm else None
        run = StudyRun(
            self._name,
            self._spec,
            self._store,
            proposals,
            kept,
            self._owner,
            self._listener,
            confirmation,
        )
        self._reconcile(run, confirmation)
        self._store.set_finished(self._name, None)
        self._listener.study_started(self._name, run.progress)
        try:
            await retry_store_faults(
                kept.gate,
                lambda: self._to_the_end(run, confirmation),
                lambda: self._reconcile(run, confirmation),
            )
        finally:
            self._reconcile(run, confirmation)  # an interrupted trial goes back to the queue
        self._store.set_finished(self._name, datetime.now(UTC))

    async def _to_the_end(self, run: StudyRun, confirmation: ConfirmationRun | None) -> None:
        with self._store.optuna_faults():
            await run.run()
            if confirmation is not None:
                await confirmation.run()

    def _enqueue_first(self, proposals: Proposals, defaults: Mapping[str, Value]) -> None:
        """Warm start: queue the older study's points that the search space contains."""
        found = [parameters_of(self._space, c, defaults) for c in self._first]
        fit = [parameters for parameters in found if parameters is not None]
        for parameters in fit:
            proposals.enqueue(parameters)
        if self._first:
            message = f"{len(fit)} configurations of the older study are measured first"
            if left := len(found) - len(fit):
                message += f"; {left} are outside the search space"
            self._listener.note(message)

    async def _enqueue_prior(self, proposals: Proposals, defaults: Mapping[str, Value]) -> None:
        """Queue the emulator's suggestions, if it knows this GPU and the model."""
        stored = self._store.study(self._name)
        gpu = emulated_gpu(stored.gpu)
        asks = self._spec.emulate is None and self._spec.sampler == "gp" and not self._first
        if gpu is None or not asks or stored.evaluation != "live":
            return
        points = await emulated_front(self._spec, self._space, self._plan(), gpu)
        told = enqueue_prior(proposals, self._space, points, defaults, gpu)
        if told is not None:
            self._store.add_event(self._name, "prior", told)
            self._listener.note(told)

    def _reconcile(self, run: StudyRun, confirmation: ConfirmationRun | None) -> None:
        """Store results that are only in the log, then complete or requeue half-done trials."""
        recover(self._name, self._spec, self._store, self._log, self._listener.note)
        run.reconcile()
        if confirmation is not None:
            confirmation.reconcile()

    def _kept(self, evaluator: Evaluator) -> DurableEvaluator:
        note, patience = self._listener.note, StoreTimeouts()
        counts = next(s for s in self._store.studies() if s.identity.name == self._name)
        return DurableEvaluator(
            evaluator,
            self._log,
            Gate(self._store, note, patience),
            self._store,
            self._name,
            self._owner,
            patience,
            Backups(self._store, counts.measured + counts.failed, note),
        )

    def _log_study(self, identity: StudyIdentity, defaults: Mapping[str, Value]) -> None:
        try:
            self._log.append(LoggedStudy(identity, defaults))
        except OSError as error:
            raise OperatorNeededError(
                f"cannot write the measurement log {self._log.path} ({error.strerror}); fix that, "
                f"then `tuner resume {self._name}`"
            ) from error

    def _put_log_aside(self) -> None:
        aside = self._log.put_aside()
        if aside is not None:
            self._listener.note(
                f"an earlier study '{self._name}', which is not in the store, left a measurement "
                f"log; it is kept as {aside}"
            )

    def _confirmation(self, evaluator: Evaluator) -> ConfirmationRun:
        return ConfirmationRun(
            self._name, self._spec, self._store, evaluator, self._owner, self._listener
        )


def this_process(run_tag: str) -> TrialOwner:
    """Return this process as the owner of trials."""
    return TrialOwner(
        pid=os.getpid(),
        boot_id=boot_id(),
        host=socket.gethostname(),
        run_tag=run_tag,
    )
