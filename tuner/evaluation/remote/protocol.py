"""Remote benches: the protocol between a study's driver and the processes that measure for it.

A bench is a set of GPUs with what measures on them: one evaluator, its guardian, its leases, its
servers' logs and CPU cores of its own. It is hosted (`hosted.py`) by a process beside the GPUs. The
driver owns search, store and measurement log, and is the only one that writes them.

The driver holds a `Carrier` for each bench and wraps it in a `RemoteEvaluator`, which is an
`Evaluator` like any other. A carrier

* opens its bench with the first call, from a `BenchOrder`, and again after it was lost;
* runs one method of the evaluator at a time and returns its `Reply`;
* passes notes and load samples to the listener as they come;
* raises what the evaluator raised, and `BenchLostError` once the bench is gone: killed, its node
  lost, or out of reach. Its own guardian puts the machine right; the driver tries the point again;
* cancels the evaluator's method if its call is cancelled, and waits until it has cleaned up;
* stops the bench with `close`.

Orders and replies travel as pickles between processes of one user that run the same version of this
package: over a pipe that only the two have (`local_process.py`), or within a Ray cluster
(`ray_carrier.py`), which has to ask for a token. To add another engine, write a carrier and choose
it in `tuner.study.workers.benches`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from tuner.devices.limit_control import Access
from tuner.evaluation.evaluator import Evaluation, MeasurementPlan
from tuner.evaluation.factory import Knobs
from tuner.spec.study import StudySpec

Method: TypeAlias = Literal[
    "prepare", "defaults", "evaluate", "confirm", "probe", "idle", "switching"
]


@dataclass(frozen=True, slots=True)
class BenchOrder:
    """What a bench is opened from.

    Attributes:
        spec: the study's, as of a study on these GPUs alone.
        plan, knobs: as `make_evaluator` takes them.
        run_tag: of this bench's servers and leases.
        log_folder: of this bench, on the host that it runs on.
        gpu_uuids: its GPUs; empty if they are emulated, or chosen by the carrier.
        cores: the CPU cores that it and its servers may use; empty: any.
    """

    spec: StudySpec
    plan: MeasurementPlan
    knobs: Knobs
    run_tag: str
    log_folder: Path
    access: Access
    gpu_uuids: tuple[str, ...] = ()
    cores: frozenset[int] = frozenset()

    @property
    def identity(self) -> str:
        """What a bench that is found again has to have been opened for."""
        spec = self.spec.model_dump_json(exclude={"study", "trials", "hours"})
        told = f"{spec} {self.plan.workload.sha256} {self.plan.fixed.to_json()}"
        return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a method returned, and whether the warm server can serve its configuration again."""

    value: Any
    is_warm: bool = False


@dataclass(frozen=True, slots=True)
class LeftOver:
    """What a bench measured for a driver that did not live to see it.

    `number` is the trial's or the repeat's, by the method.
    """

    method: Method
    number: int
    evaluation: Evaluation
    started_at: datetime


class Carrier(Protocol):
    """Carries calls to one bench; see the module."""

    async def call(self, method: Method, *arguments: Any) -> Reply:
        """Run a method of the bench's evaluator.

        Raises what it raised, and `BenchLostError` if the bench is gone.
        """

    async def left_over(self) -> LeftOver | None:
        """Return what the bench of an earlier driver of this study has measured, or measures now.

        None if there is none: a bench may end with its driver.
        """

    async def close(self) -> None:
        """Stop the bench and everything that it started; a second time is nothing."""
