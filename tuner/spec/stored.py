"""Stored spec: a study's spec as JSON, with its fixed settings and measured capacity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from tuner.configuration import Configuration
from tuner.metrics import Output
from tuner.records import Load
from tuner.store import StudyIdentity
from tuner.store.faults import readable

if TYPE_CHECKING:  # its model takes long to make, and what only reads a store does without
    from tuner.spec.study import StudySpec

_FIXED, _CAPACITY, _OWN_LOAD, _OUTPUT = "fixed", "capacity", "workload_load", "output"
_RESOLVED = (_FIXED, _CAPACITY, _OWN_LOAD, _OUTPUT)
_LEVELS, _DEFAULT_LEVEL, _WRITTEN_OUT = "thinking_levels", "thinking_level", "baseline_values"


@dataclass(frozen=True, slots=True)
class Capacity:
    """The highest load that the default configuration sustains under the SLO, in requests/s.

    `request_rate` is the highest rate that was sustained and `missed_rate` the lowest that was not;
    `missed` says which SLO it missed. Both are None if every load was sustained. `tries` loads were
    measured.
    """

    request_rate: float
    missed_rate: float | None = None
    missed: str | None = None
    tries: int = 0

    def share(self, share: float) -> float:
        """Return a share of it, in requests/s, rounded to its precision."""
        return float(f"{share * self.request_rate:.3g}")

    def __str__(self) -> str:
        beyond = f" ({self.missed_rate:.3g}/s: {self.missed})" if self.missed_rate else ""
        return (
            f"the default configuration sustains {self.request_rate:.3g} requests/s{beyond}, "
            f"found with {self.tries} loads"
        )


@dataclass(frozen=True, slots=True)
class StoredSpec:
    """A study's spec, and the values it was resolved to when the study began.

    Attributes:
        asked: the spec's fields in JSON. An older store may lack some or have others.
        fixed: the settings that every configuration of the study shares.
        capacity: the capacity that the load is a share of, if it was given as a share.
        workload_load: the load that the workload states; None in an older store.
        output: what the workload asks for.
        levels: the workload's levels of thinking, and what each asks for.
        default_level: that of a trial that sets none; None if it has no name.
        written_out: the baseline with the value of every knob, where `thinking` is one.
    """

    asked: Mapping[str, Any]
    fixed: Configuration = field(default_factory=Configuration)
    capacity: Capacity | None = None
    workload_load: Load | None = None
    output: Output = Output.TEXT
    levels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    default_level: str | None = None
    written_out: Configuration | None = None

    @classmethod
    def of(cls, study: StudyIdentity) -> StoredSpec:
        """Return the spec of a stored study; `OperatorNeededError` for one that cannot be read."""
        with readable(f"the spec of study '{study.name}'"):
            found = cls.from_json(study.spec_json)
            _ = (
                found.load,
                found.workload,
                found.quality_drop,
                found.picture_drop,
                found.emulate,
                found.confirms,
            )
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoredSpec:
        """Build from the result of `to_json`, of this or an older version."""
        capacity, own = data.get(_CAPACITY), data.get(_OWN_LOAD)
        written = data.get(_WRITTEN_OUT)
        resolved = (*_RESOLVED, _LEVELS, _DEFAULT_LEVEL, _WRITTEN_OUT)
        return cls(
            asked={name: value for name, value in data.items() if name not in resolved},
            fixed=Configuration.from_json(data.get(_FIXED) or {}),
            capacity=None if capacity is None else _capacity(capacity),
            workload_load=None if own is None else Load(**own),
            output=Output(data.get(_OUTPUT, Output.TEXT)),
            levels=data.get(_LEVELS) or {},
            default_level=_text(data.get(_DEFAULT_LEVEL)),
            written_out=Configuration.from_json(written) if written else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the form for the store; `from_json` reads it back."""
        own = self.workload_load
        return {
            **self.asked,
            **({} if own is None else {_OWN_LOAD: asdict(own)}),
            **({} if self.output is Output.TEXT else {_OUTPUT: self.output.value}),
            **({_LEVELS: dict(self.levels)} if self.levels else {}),
            **({} if self.default_level is None else {_DEFAULT_LEVEL: self.default_level}),
            **({} if self.written_out is None else {_WRITTEN_OUT: self.written_out.to_json()}),
            _FIXED: self.fixed.to_json(),
            _CAPACITY: None if self.capacity is None else asdict(self.capacity),
        }

    @property
    def known(self) -> dict[str, Any]:
        """The stored fields that `StudySpec` still has, by their names in a STUDY.yaml."""
        return {name: value for name, value in self.asked.items() if name in _names()}

    @property
    def load(self) -> Load | None:
        """The requested load; None if it was left to the workload."""
        if self.asked.get("request_rate") is not None:
            return Load(request_rate=float(self.asked["request_rate"]))
        if self.asked.get("concurrency") is not None:
            return Load(concurrency=int(self.asked["concurrency"]))
        return None

    @property
    def workload(self) -> str | None:
        """The workload's shipped name or file."""
        return _text(self.asked.get("workload"))

    @property
    def baseline_row(self) -> str:
        """What tables and figures call the trial that everything is compared with."""
        return "default" if self.asked.get("baseline") is None else "baseline"

    @property
    def baseline_name(self) -> str:
        """What everything is compared with, for people."""
        return "vLLM's default" if self.asked.get("baseline") is None else "your baseline"

    @property
    def quality_drop(self) -> float:
        """How much less of the questions a configuration on the front may answer right."""
        return float(self.asked.get("quality_drop") or 0.0)

    @property
    def picture_drop(self) -> float:
        """How much less than the baseline's own pictures those on the front may resemble them."""
        return float(self.asked.get("picture_drop", 1.0))

    @property
    def emulate(self) -> str | None:
        """The emulated GPU; None on real GPUs."""
        return _text(self.asked.get("emulate"))

    @property
    def confirms(self) -> bool:
        """Whether the search is followed by a confirmation of the front."""
        return bool(self.asked.get("confirm", True))


def spec_of(study: StudyIdentity) -> StudySpec:
    """Return a stored study's spec with its present budget; raises `UsageError`.

    A study of a version that knew no traffic goes on with the requests as they are drawn.
    """
    from tuner.catalog.yaml_files import validate
    from tuner.spec.study import StudySpec

    hours = None if study.budget_s is None else study.budget_s / 3600.0
    budget = {"trials": study.budget_trials, "hours": hours}
    known = {"traffic": "drawn", **StoredSpec.of(study).known, **budget}
    return validate(f"study {study.name}", known, StudySpec)


def _capacity(data: Mapping[str, Any]) -> Capacity:
    names = {one.name for one in fields(Capacity)}
    return Capacity(**{name: value for name, value in data.items() if name in names})


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


@cache
def _names() -> frozenset[str]:
    """Return the fields of a spec by their names in a STUDY.yaml."""
    from tuner.spec.study import StudySpec

    return frozenset(
        str(one.serialization_alias or name) for name, one in StudySpec.model_fields.items()
    )
