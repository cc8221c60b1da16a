"""Assembly of a run: evaluator, proposals, loop and confirmation, composed from a spec."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial

from tuner.analysis.outlook import margins
from tuner.configuration import THINKING, Configuration, Value
from tuner.errors import TunerError
from tuner.evaluation.evaluator import MeasurementPlan, Testbed
from tuner.evaluation.factory import (
    RunContext,
    baseline_configuration,
    fixed_configuration,
    measurement_plan,
    space_knobs,
)
from tuner.evaluation.rate_share import resolved_rate
from tuner.host.process import boot_id, preferred_thread
from tuner.load.workload import Workload
from tuner.search.observation import Observation
from tuner.spec.device_ranges import gpus_for
from tuner.spec.search_space import SearchSpace
from tuner.spec.stored import Capacity
from tuner.spec.study import StudySpec
from tuner.store import Store, StudyIdentity, TrialOwner
from tuner.store.lock.one_writer_storage import OneWriterStorage
from tuner.store.lock.protocol import StudyLock
from tuner.study.checks.early_question import EarlyQuestion
from tuner.study.checks.final_checks import FinalChecks
from tuner.study.checks.operating_points import OperatingPoints
from tuner.study.checks.prober import Prober
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.durability.backups import Backups
from tuner.study.durability.durable_evaluator import (
    DurableEvaluator,
    Gate,
    StoreTimeouts,
    retry_store_faults,
)
from tuner.study.durability.left_over import keep_left_over
from tuner.study.durability.recovery import recover
from tuner.study.identity import identity_of, require_same
from tuner.study.inputs.keeping import files_to_keep
from tuner.study.listener import Listener
from tuner.study.loop import StudyRun
from tuner.study.proposals.first_points import enqueue_emulated, enqueue_levels, enqueue_older
from tuner.study.proposals.memory_fit import fitting
from tuner.study.proposals.proposals import Proposals
from tuner.study.racing.stored_rivals import StoredRivals
from tuner.study.run_files import RunFiles
from tuner.study.study_log import LoggedListener
from tuner.study.workers.bench import Bench
from tuner.study.workers.benches import (
    OpenedBenches,
    defaults_of,
    left_over_of,
    opened_benches,
    prepared,
)
from tuner.study.workers.card_baselines import CardBaselines
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.other_cards import default_elsewhere
from tuner.study.workers.worker import Worker


class Run:
    """One run of a study, in this process; `start` or `resume` is called once."""

    def __init__(
        self,
        name: str,
        spec: StudySpec,
        space: SearchSpace,
        workload: Workload,
        store: Store,
        listener: Listener,
        *,
        yes: bool = False,
        moved_from: str | None = None,
        confirms: bool = True,
    ) -> None:
        """`moved_from` is the model of the stored study, if its files lie elsewhere now.

        `confirms` says whether what the spec asks to be confirmed is, before it is checked.
        """
        self._confirms = confirms and spec.confirm
        self._moved_from = moved_from
        self._question = None if yes else EarlyQuestion(name, spec, space, store)
        self._name = name
        self._spec = spec
        self._space = space
        self._workload = workload
        self._store = store
        self._files = RunFiles(store, name)
        self._listener: Listener = LoggedListener(
            listener, self._files.study_log, self._files.now_file
        )
        self._owner = _this_process(f"{name}-{secrets.token_hex(4)}")
        self._fixed = fixed_configuration(space, spec.baseline)
        self._baseline = baseline_configuration(space, spec.baseline)
        self._gpus: int | None = None
        self._capacity: Capacity | None = None  # if the load is a share of it
        self._context = RunContext(
            self._owner.run_tag, self._files.folder, spec.access, self._listener
        )

    async def start(self, older: Sequence[Configuration] = ()) -> None:
        """Run a new study to the end of its budget; `older` configurations are measured first."""
        with self._files.opened(), self._priority():
            async with self._opened() as (opened, rivals):
                testbed, benches = await prepared(opened.benches, self._listener.note)
                defaults = await defaults_of(benches, self._listener.note)
                self._store_study(testbed, defaults)
                self._files.log_identity(self._store.study(self._name), defaults)
                newcomers = self._newcomers(opened, testbed)
                await self._loop(benches, defaults, older, newcomers, rivals)

    async def resume(self) -> None:
        """Run a stored study on to the end of its budget."""
        with self._files.opened(), self._priority():
            async with self._opened() as (opened, rivals):
                left_over = await left_over_of(opened.benches)
                testbed, benches = await prepared(opened.benches, self._listener.note)
                self._continue_study(testbed)
                self._files.log_identity(self._store.study(self._name), {})
                keep_left_over(self._name, self._store, self._files.log, left_over)
                newcomers = self._newcomers(opened, testbed)
                await self._loop(benches, {}, (), newcomers, rivals)

    def _priority(self) -> AbstractContextManager[object]:
        is_asked = self._spec.client_priority and self._spec.is_real_time
        return preferred_thread() if is_asked else nullcontext()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[OpenedBenches, StoredRivals]]:
        """Open the benches, and what their loads race against."""
        self._gpus = await asyncio.to_thread(gpus_for, self._spec)
        if (share := self._spec.request_rate_share) is not None:
            self._spec, self._capacity = await resolved_rate(
                self._spec, share, self._plan(), self._context
            )
        knobs = space_knobs(self._space, self._gpus, self._fixed)
        rivals = StoredRivals(self._name, self._spec, self._plan(), self._store)
        plan = rivals.raced(self._plan())
        if self._confirms and self._spec.is_real_time and plan.heaviness is not None:
            await asyncio.to_thread(plan.heaviness.prepare)  # later a load would wait for it
        async with opened_benches(self._name, self._spec, plan, knobs, self._context) as opened:
            yield opened, rivals

    def _store_study(self, testbed: Testbed, defaults: Mapping[str, Value]) -> None:
        """Store a new study; raises before it if the baseline lies outside the space."""
        identity = self._identity(testbed, self._written_out(defaults))
        self._space.baseline_parameters(defaults, self._baseline)
        self._files.put_log_aside(self._listener.note)
        self._store.create_study(identity, files_to_keep(self._spec, self._space))
        if self._capacity is not None:
            self._store.add_event(self._name, "capacity", str(self._capacity))

    def _continue_study(self, testbed: Testbed) -> None:
        """Set the stored study's budget; raises if results of then and now would not compare."""
        identity = self._identity(testbed, None)
        if self._moved_from is not None:
            identity = dataclasses.replace(identity, model=self._moved_from)
        require_same(self._store.study(self._name), identity)
        self._store.set_budget(self._name, trials=self._spec.trials, hours=self._spec.hours)

    def _identity(self, testbed: Testbed, written_out: Configuration | None) -> StudyIdentity:
        """Return what the study is on this testbed, which the study's log is told."""
        identity = identity_of(
            self._name,
            self._spec,
            self._space,
            self._workload,
            testbed,
            self._capacity,
            written_out,
        )
        self._files.study_log.write("bench", **dataclasses.asdict(testbed))
        return identity

    def _newcomers(
        self, opened: OpenedBenches, testbed: Testbed
    ) -> Callable[[], Awaitable[list[Bench]]] | None:
        return partial(opened.joined, testbed, self._listener.note) if opened.can_grow else None

    def _written_out(self, defaults: Mapping[str, Value]) -> Configuration | None:
        if THINKING not in self._space.load:
            return None
        parameters = self._space.baseline_parameters(defaults, self._baseline)
        return self._space.configuration(parameters)

    def _plan(self) -> MeasurementPlan:
        plan = measurement_plan(self._spec, self._workload, self._fixed, self._baseline)
        return dataclasses.replace(plan, ends_early=True)

    async def _loop(
        self,
        benches: Sequence[Bench],
        defaults: Mapping[str, Value],
        older: Sequence[Configuration],
        newcomers: Callable[[], Awaitable[list[Bench]]] | None,
        rivals: StoredRivals,
    ) -> None:
        proposals = Proposals(
            OneWriterStorage(self._store.optuna_storage()),
            self._name,
            self._space,
            self._spec.slos,
            self._spec.objectives,
            self._spec.sampler,
            self._spec.seed,
            fitting(self._spec.model, self._store.study(self._name).gpu),
            self._gpus,
            self._baseline,
            self._fixed,
            self._margins,
            self._on_other_cards,
        )
        if not proposals.has_baseline:
            defaults = defaults or await benches[0].evaluator.defaults()
            await self._enqueue_first_points(proposals, defaults, older)
        patience = StoreTimeouts()
        gate = Gate(self._store, self._lock, self._listener.note, patience)
        fleet = self._fleet(benches, newcomers, gate, patience)
        confirmation = self._confirmation(fleet, proposals) if self._confirms else None
        prober = self._prober(fleet) if self._spec.makes_checks else None
        run = StudyRun(
            self._name,
            self._spec.before_checks(),
            self._store,
            proposals,
            fleet,
            self._listener,
            confirmation,
            self._question,
            CardBaselines(self._name, self._plan(), self._store, fleet, self._listener),
        )
        self._reconcile(run)
        self._store.set_finished(self._name, None)
        self._listener.study_started(self._name, run.progress)
        try:
            await retry_store_faults(
                gate,
                lambda: self._to_the_end(run, rivals, fleet, confirmation, prober),
                lambda: self._reconcile(run),
            )
        except BaseException:
            with suppress(TunerError):  # what ended the run counts; `resume` does the same
                self._lock.check()
                self._reconcile(run)  # an interrupted trial goes back to the queue
            raise

    def _on_other_cards(self) -> list[Observation]:
        """Return what the default gave on cards that no trial of it is from."""
        if not self._spec.has_cards:
            return []
        probes = self._store.repeats.probes(self._name)
        return default_elsewhere(probes, self._spec.objectives, self._spec.slos)

    def _margins(self) -> dict[str, float]:
        """Return how far within each SLO the search aims; nowhere if nothing is confirmed."""
        if not self._spec.confirm or self._spec.traffic == "drawn":
            return {}
        trials, repeats = self._store.trials(self._name), self._store.repeats.of(self._name)
        found = margins(self._spec.slos, trials, repeats)
        return {key: margin.needed for key, margin in found.items()}

    async def _to_the_end(
        self,
        run: StudyRun,
        rivals: StoredRivals,
        fleet: Fleet,
        confirmation: ConfirmationRun | None,
        prober: Prober | None,
    ) -> None:
        with self._store.optuna_faults():
            with rivals.open():
                await run.run()
            checks = None if prober is None else FinalChecks(prober)
            is_asked = self._spec.headroom is not None
            required = checks.required if checks is not None and is_asked else None
            if confirmation is not None:
                await confirmation.run(run.simplify, required)
            if prober is not None and checks is not None:
                await fleet.run_on_one(checks.run)
                until_s = checks.repeats_until_s
                if confirmation is not None and until_s is not None:
                    await confirmation.go_on(until_s, required)
                    await fleet.run_on_one(checks.run)
                await fleet.run_on_one(OperatingPoints(prober, checks).run)
            self._store.set_finished(self._name, datetime.now(UTC))

    async def _enqueue_first_points(
        self,
        proposals: Proposals,
        defaults: Mapping[str, Value],
        older: Sequence[Configuration],
    ) -> None:
        proposals.enqueue_baseline(defaults)
        enqueue_levels(proposals, self._space, defaults, self._baseline)
        if older:
            enqueue_older(proposals, self._space, older, defaults, self._listener.note)
            return
        stored = self._store.study(self._name)
        told = await enqueue_emulated(
            proposals, self._space, self._spec, stored, self._plan(), defaults
        )
        if told is not None:
            self._store.add_event(self._name, "prior", told)
            self._listener.note(told)

    def _reconcile(self, run: StudyRun) -> None:
        """Store results that are only in the log, then complete or requeue half-done trials."""
        with self._store.optuna_faults():
            recover(self._name, self._spec, self._store, self._files.log, self._listener.note)
            run.reconcile()

    @property
    def _lock(self) -> StudyLock:
        assert self._files.lock is not None  # the files are opened first
        return self._files.lock

    def _fleet(
        self,
        benches: Sequence[Bench],
        newcomers: Callable[[], Awaitable[list[Bench]]] | None,
        gate: Gate,
        patience: StoreTimeouts,
    ) -> Fleet:
        """Return a worker for each bench, whose results go to one log in front of one store."""
        counts = next(s for s in self._store.studies() if s.identity.name == self._name)
        backups = Backups(self._store, counts.measured + counts.failed, self._listener.note)

        def worker(bench: Bench) -> Worker:
            owner = dataclasses.replace(self._owner, card=bench.card)
            durable = DurableEvaluator(
                bench.evaluator,
                self._files.log,
                gate,
                self._store,
                self._name,
                owner,
                patience,
                backups,
            )
            return Worker(durable, owner)

        async def new_workers() -> list[Worker]:
            return [] if newcomers is None else [worker(bench) for bench in await newcomers()]

        workers = [worker(bench) for bench in benches]
        return Fleet(workers, self._listener.note, new_workers if newcomers else None)

    def _confirmation(self, fleet: Fleet, proposals: Proposals) -> ConfirmationRun:
        spec, expected_costs = self._spec.before_checks(), proposals.returns.expected_costs
        return ConfirmationRun(self._name, spec, self._store, fleet, self._listener, expected_costs)

    def _prober(self, fleet: Fleet) -> Prober:
        return Prober(self._name, self._spec, self._plan(), self._store, fleet, self._listener)


def _this_process(run_tag: str) -> TrialOwner:
    """Return this process as the owner of trials."""
    return TrialOwner(
        pid=os.getpid(),
        boot_id=boot_id(),
        host=socket.gethostname(),
        run_tag=run_tag,
    )
