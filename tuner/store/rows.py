"""What goes into the store and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from tuner.configuration import Configuration
from tuner.records import Failure, Measurement, Source, Timing


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
    finished_at: datetime | None = None  # search and confirmation are over; None: they are not
    gpu_uuids: tuple[str, ...] = ()  # none of an emulated GPU, or not known
    model_revision: str | None = None  # of the model's files, where it could be known


@dataclass(frozen=True, slots=True)
class TrialOwner:
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
    """One trial as stored, without its raw records; `timing` is None where that is not known."""

    number: int
    configuration: Configuration
    baseline: bool
    state: TrialState
    measurement: Measurement | None
    failure: Failure | None
    warnings: tuple[str, ...]
    started_at: datetime
    ended_at: datetime | None
    owner: TrialOwner
    timing: Timing | None = None


class RepeatKind(StrEnum):
    """Why a configuration was measured again."""

    BASELINE = "baseline"
    CONFIRMATION = "confirmation"


Answers: TypeAlias = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class RepeatRow:
    """One more measurement of trial `trial`'s configuration, on a launch of its own.

    `number` counts the repeats of a study from 0. `answers` are the token ids with which the
    server answered the probe prompts, None if it was not asked.
    """

    number: int
    trial: int
    kind: RepeatKind
    state: TrialState
    measurement: Measurement | None
    failure: Failure | None
    warnings: tuple[str, ...]
    started_at: datetime
    ended_at: datetime | None
    owner: TrialOwner
    timing: Timing | None = None
    answers: Answers | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that happened during a study, told to people."""

    at: datetime
    kind: str
    message: str
    trial: int | None


@dataclass(frozen=True, slots=True)
class ComparisonPoint:
    """What another tool measured: no trial, without energy, never on a front.

    `sha256` is of the file that it comes from. `request_rate` (1/s) and `concurrency` are the load
    as far as the file tells it, `duration_s` the length of that run. `metrics` are named as ours;
    one that the tool does not have, or has by another formula, is absent.
    """

    tool: str
    file_name: str
    sha256: str
    model: str
    imported_at: datetime
    request_rate: float | None
    concurrency: int | None
    completed: int
    failed: int | None
    duration_s: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study with the counts of its trials by state, and of its measured repeats."""

    identity: StudyIdentity
    running: int
    measured: int
    failed: int
    confirmations: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether search and confirmation are over."""
        return self.identity.finished_at is not None
