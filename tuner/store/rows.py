"""Row types: studies, trials, repeats, events and comparison points as the store returns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from tuner.configuration import Configuration
from tuner.pictures import Pictures
from tuner.records import Failure, Load, Measurement, Source, Timing


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """The identity of a study and its spent budget.

    `spec_json` is the full resolved spec, enough to resume. `slos` and `objectives` have the form
    that users write. `created_at` is an aware UTC time.
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
    gpu_uuids: tuple[str, ...] = ()  # empty for an emulated GPU, or unknown
    model_revision: str | None = None  # of the model's files, if known
    note: str | None = None  # by the user

    @property
    def is_finished(self) -> bool:
        """Whether search and confirmation are over."""
        return self.finished_at is not None


@dataclass(frozen=True, slots=True)
class TrialOwner:
    """The process that runs a trial. A pid is only valid under the same `boot_id`.

    `card` names the GPU or GPUs that it is measured on, in a study on several; None in others.
    """

    pid: int
    boot_id: str
    host: str
    run_tag: str
    card: str | None = None


class TrialState(StrEnum):
    """The state of a trial."""

    RUNNING = "running"
    MEASURED = "measured"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One evaluation: who ran it and when, and its result; `timing` is None if unknown."""

    state: TrialState
    measurement: Measurement | None
    failure: Failure | None
    warnings: tuple[str, ...]
    started_at: datetime
    ended_at: datetime | None
    owner: TrialOwner
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class TrialRow(Outcome):
    """One trial as stored, without its raw records."""

    number: int
    configuration: Configuration
    baseline: bool


class RepeatKind(StrEnum):
    """Why a configuration was measured again."""

    BASELINE = "baseline"
    CONFIRMATION = "confirmation"


class ProbeKind(StrEnum):
    """What a configuration was probed for, beside search and confirmation."""

    HEADROOM = "headroom"  # another rate or concurrency
    STRESS = "stress"  # the longest requests, as many as run at once
    IDLE = "idle"  # no load: the power of a loaded server
    LOAD = "load"  # an operating point: a share of the load that it can take under the SLO
    SWITCHING = "switching"  # a start, and sleep and waking where the server has them
    CARD = "card"  # the study's own load: the default on one more card


def kind_named(name: str) -> RepeatKind | ProbeKind:
    """Return the kind of a stored row; raises `ValueError`."""
    return ProbeKind(name) if name in set(ProbeKind) else RepeatKind(name)


Answers: TypeAlias = tuple[tuple[int, ...], ...]
Grades: TypeAlias = tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class RepeatRow(Outcome):
    """A repeat: one more measurement of trial `trial`'s configuration, on a clean launch.

    `number` counts the repeats of a study from 0. `answers` are the token ids of the server's
    answers to the probe prompts, None if it was not asked. `traffic` numbers the stretch of
    traffic, which the search did not see; None in an older store, where it was the search's.
    `grades` says of each question of the study's quality file whether the answer was right, None if
    they were not asked. `pictures` are those that it made of the baseline's prompts and seeds,
    beside the baseline's.
    `load` is that of a probe at another load than the study's.
    """

    number: int
    trial: int
    kind: RepeatKind | ProbeKind
    answers: Answers | None = None
    traffic: int | None = None
    grades: Grades | None = None
    pictures: Pictures | None = None
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event of a study, as a message for people."""

    at: datetime
    kind: str
    message: str
    trial: int | None


UNKNOWN_MODEL = "unknown"  # of a file that does not name it


@dataclass(frozen=True, slots=True)
class ComparisonPoint:
    """A comparison point: another tool's result, without energy, never on a front.

    `sha256` is the hash of its file. `server` is what was measured if that is known not to be vLLM.
    `request_rate` (1/s) and `concurrency` are the load as far as the file says, `arrivals` says how
    requests came where that is no constant rate, `duration_s` is the length of that run. `metrics`
    have the tuner's names; one that the tool lacks, or defines by another formula, is absent.
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
    server: str | None = None
    arrivals: str | None = None


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
        return self.identity.is_finished
