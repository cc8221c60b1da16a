"""What goes into the store and comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from tuner.configuration import Configuration
from tuner.records import Failure, Measurement, Source


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """What a study is about, and how far its budget is spent.

    `spec_json` is the whole resolved specification: enough to resume. `slos` and `objectives` are
    in the form users write them. `created_at` is an aware UTC time.
    """

    name: str
    created_at: datetime
    model: str
    workload_name: str
    workload_sha256: str
    space_name: str
    space_sha256: str
    slos: tuple[str, ...]
    objectives: tuple[str, ...]
    evaluation: str  # live, virtual or attached
    server_version: str
    gpu: str
    driver: str | None
    energy_source: Source
    latency_source: Source
    budget_trials: int | None
    budget_s: float | None
    spent_s: float
    spec_json: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that runs a trial. A pid is only to be trusted under the same `boot_id`."""

    pid: int
    boot_id: str
    host: str
    run_tag: str


class TrialState(StrEnum):
    """How far a trial is."""

    RUNNING = "running"
    MEASURED = "measured"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial as stored, without its raw records."""

    number: int
    configuration: Configuration
    baseline: bool
    state: TrialState
    measurement: Measurement | None
    failure: Failure | None
    warnings: tuple[str, ...]
    started_at: datetime
    ended_at: datetime | None
    owner: Owner


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that happened during a study, told to people."""

    at: datetime
    kind: str
    message: str
    trial: int | None


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study with the counts of its trials by state."""

    identity: StudyIdentity
    running: int
    measured: int
    failed: int

    @property
    def is_finished(self) -> bool:
        """Whether the budget is spent; without a budget, whether nothing is running."""
        budget = self.identity
        if budget.budget_trials is None and budget.budget_s is None:
            return self.running == 0
        by_trials = (
            budget.budget_trials is not None and self.measured + self.failed >= budget.budget_trials
        )
        return by_trials or (budget.budget_s is not None and budget.spent_s >= budget.budget_s)
