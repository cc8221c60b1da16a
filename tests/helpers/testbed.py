"""One study with a scripted evaluator, on a real store and a real Optuna."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import cached_property

import optuna
from optuna.storages import RDBStorage

from helpers.records import study_identity
from helpers.scripted import SPACE, Recorder, Script, ScriptedEvaluator, physics
from tuner.records import Source
from tuner.spec.study import StudySpec
from tuner.store import Store, StudyIdentity, TrialOwner
from tuner.store.lock.one_writer_storage import OneWriterStorage
from tuner.study.loop import StudyRun
from tuner.study.proposals.proposals import Proposals
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker

OWNER = TrialOwner(pid=1, boot_id="boot", host="here", run_tag="tag")
SPEC = StudySpec(model="m", slo=("p99_tpot_ms<=40",), trials=8, sampler="random")


class Died(BaseException):
    """Stands for a kill: nothing after it runs."""


class Testbed:
    """One study with everything around it; `run()` is one start of the tuner."""

    __test__ = False  # whatever pytest takes a class of this name for

    def __init__(self, store: Store, script: Script = physics, spec: StudySpec = SPEC) -> None:
        self.store = store
        self.spec = spec
        self.evaluator = ScriptedEvaluator(script)
        self.listener = Recorder()
        if "s" not in {s.identity.name for s in store.studies()}:
            store.create_study(identity(spec))

    @cached_property
    def storage(self) -> RDBStorage:
        """Optuna's, whose own migrations take longer to read than a trial takes here."""
        return self.store.optuna_storage()

    def start(self) -> StudyRun:
        proposals = Proposals(
            OneWriterStorage(self.storage),
            "s",
            SPACE,
            self.spec.slos,
            self.spec.objectives,
            self.spec.sampler,
            seed=0,
        )
        if not proposals.has_baseline:
            proposals.enqueue_baseline({})
        return StudyRun("s", self.spec, self.store, proposals, self.fleet, self.listener)

    @property
    def fleet(self) -> Fleet:
        """One worker, without a card of its own."""
        return Fleet([Worker(self.evaluator, OWNER)])

    def run(self) -> None:
        run = self.start()
        run.reconcile()
        asyncio.run(run.run())

    @property
    def optuna_trials(self) -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="s", storage=self.storage).trials


def identity(spec: StudySpec) -> StudyIdentity:
    return study_identity(
        name="s",
        created_at=datetime.now(UTC),
        model="m",
        workload_sha256="w",
        space_name="test",
        space_sha256="s",
        slos=tuple(slo.text for slo in spec.slos),
        objectives=tuple(o.text for o in spec.objectives),
        server_version="1.0",
        gpu="GPU",
        driver=None,
        energy_source=Source.EMULATED,
        budget_trials=spec.trials,
        spent_s=0.0,
        spec_json={},
        finished_at=None,
    )
