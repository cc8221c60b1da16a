"""The records of a measurement log, and how they are written as JSON."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from tuner.configuration import Configuration, Value
from tuner.host.redaction import redacted
from tuner.pictures import Pictures, pictures_of
from tuner.records import (
    Failure,
    FailureKind,
    Load,
    Measurement,
    RawRun,
    Source,
    Timing,
)
from tuner.store import raw
from tuner.store.rows import (
    Answers,
    Grades,
    ProbeKind,
    RepeatKind,
    StudyIdentity,
    TrialOwner,
    kind_named,
)


@dataclass(frozen=True, slots=True)
class LoggedStudy:
    """The study of a log; the last such record counts.

    `defaults` are the values of knobs that are not set, as far as server and device report them.
    """

    identity: StudyIdentity
    defaults: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class RepeatOf:
    """The trial that an evaluation repeated, why, on which traffic, and the load of a probe."""

    trial: int
    kind: RepeatKind | ProbeKind
    traffic: int | None = None
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class LoggedResult:
    """The result of one evaluation, measured or failed, with everything that the store keeps.

    `number` is the trial's number, or the repeat's if `repeat` is set. `spent_s` is the time taken
    from the budget, s. `encoded_raw` are the raw records as encoded by `tuner.store.raw`, None if
    there were none or the disk was full.
    """

    number: int
    configuration: Configuration
    owner: TrialOwner
    started_at: datetime
    ended_at: datetime
    result: Measurement | Failure
    timing: Timing
    spent_s: float
    warnings: tuple[str, ...] = ()
    encoded_raw: bytes | None = None
    repeat: RepeatOf | None = None
    answers: Answers | None = None
    grades: Grades | None = None
    pictures: Pictures | None = None

    @property
    def raw(self) -> RawRun | None:
        """The raw records; raises as `tuner.store.raw.decode` does."""
        return None if self.encoded_raw is None else raw.decode(self.encoded_raw)


LogRecord: TypeAlias = LoggedStudy | LoggedResult


def to_json(record: LogRecord) -> dict[str, Any]:
    """Return a JSON-ready form; `from_json` reads it back."""
    if isinstance(record, LoggedStudy):
        identity = dataclasses.asdict(record.identity)
        for name in ("created_at", "finished_at"):
            at = identity[name]
            identity[name] = None if at is None else at.isoformat()
        return {"kind": "study", "identity": identity, "defaults": dict(record.defaults)}
    encoded, repeat = record.encoded_raw, record.repeat
    return {
        "kind": "result",
        "number": record.number,
        "repeat": None if repeat is None else _repeat_json(repeat),
        "configuration": record.configuration.to_json(),
        "owner": dataclasses.asdict(record.owner),
        "started_at": record.started_at.isoformat(),
        "ended_at": record.ended_at.isoformat(),
        **_result_json(record.result),
        "took_s": [record.timing.elapsed_s, record.timing.launch_s],
        "spent_s": record.spent_s,
        "warnings": [redacted(warning) for warning in record.warnings],
        "answers": record.answers,
        **({} if record.grades is None else {"grades": record.grades}),
        **(
            {}
            if record.pictures is None
            else {"pictures": [one.to_json() for one in record.pictures]}
        ),
        "raw": None if encoded is None else base64.b85encode(encoded).decode(),
    }


def from_json(data: Mapping[str, Any]) -> LogRecord:
    """Build from the result of `to_json`; raises `ValueError`, `KeyError` or `TypeError`."""
    if data["kind"] == "study":
        return LoggedStudy(_identity(data["identity"]), data["defaults"])
    if data["kind"] != "result":
        raise ValueError(f"unknown kind of record: {data['kind']!r}")
    repeat, encoded, answers = data["repeat"], data["raw"], data["answers"]
    return LoggedResult(
        number=data["number"],
        configuration=Configuration.from_json(data["configuration"]),
        owner=TrialOwner(**data["owner"]),
        started_at=datetime.fromisoformat(data["started_at"]),
        ended_at=datetime.fromisoformat(data["ended_at"]),
        result=_result(data),
        timing=Timing(*data["took_s"]),
        spent_s=data["spent_s"],
        warnings=tuple(data["warnings"]),
        encoded_raw=None if encoded is None else base64.b85decode(encoded),
        repeat=None if repeat is None else _repeat_of(*repeat),
        answers=None if answers is None else tuple(tuple(answer) for answer in answers),
        grades=None if data.get("grades") is None else tuple(data["grades"]),
        pictures=pictures_of(data.get("pictures")),
    )


def _repeat_json(repeat: RepeatOf) -> list[Any]:
    load = None if repeat.load is None else dataclasses.asdict(repeat.load)
    return [repeat.trial, repeat.kind.value, repeat.traffic, load]


def _repeat_of(
    trial: int, kind: str, traffic: int | None = None, load: Mapping[str, Any] | None = None
) -> RepeatOf:
    """Return what was repeated; an older log has no traffic and no load."""
    return RepeatOf(trial, kind_named(kind), traffic, None if load is None else Load(**load))


def _identity(data: Mapping[str, Any]) -> StudyIdentity:
    finished_at = data["finished_at"]
    read: dict[str, Any] = {
        **data,
        **{k: tuple(v) for k, v in data.items() if isinstance(v, list)},
        "created_at": datetime.fromisoformat(data["created_at"]),
        "finished_at": None if finished_at is None else datetime.fromisoformat(finished_at),
        "energy_source": Source(data["energy_source"]),
        "latency_source": Source(data["latency_source"]),
    }
    known = {field.name for field in dataclasses.fields(StudyIdentity)}
    return StudyIdentity(**{name: value for name, value in read.items() if name in known})


def _result_json(result: Measurement | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        log_path = None if result.log_path is None else str(result.log_path)
        return {"failure": [result.kind.value, redacted(result.reason), log_path]}
    return {
        "metrics": {name: float(value) for name, value in result.metrics.items()},
        "window_s": [float(result.window_start_s), float(result.window_end_s)],
        "sources": [result.latency_source.value, result.energy_source.value],
        "ended_early": result.ended_early,
    }


def _result(data: Mapping[str, Any]) -> Measurement | Failure:
    if "failure" in data:
        kind, reason, log_path = data["failure"]
        return Failure(FailureKind(kind), reason, None if log_path is None else Path(log_path))
    (start_s, end_s), (latency, energy) = data["window_s"], data["sources"]
    return Measurement(
        data["metrics"], start_s, end_s, Source(latency), Source(energy), data["ended_early"]
    )
