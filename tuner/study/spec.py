"""What a user asks for: a study, from the command line or from a STUDY.yaml."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tuner.errors import UsageError
from tuner.records import Load
from tuner.slo import Slo
from tuner.study.objective import DEFAULT_OBJECTIVES, Objective
from tuner.yaml_files import read_mapping, validate

SamplerName = Literal["auto", "gp", "tpe", "random"]


class StudySpec(BaseModel):
    """Everything that decides what a study measures and how.

    `trials` and `hours` are the budget: the study ends with whichever is spent first. Hours are
    wall-clock time, and virtual time on the embedded emulator.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    study: str | None = Field(default=None, pattern=r"^\w[\w.-]*$")
    model: str = Field(min_length=1)
    workload: str = "chat"
    space: str = "default"
    slo: tuple[str, ...] = ()
    objective: tuple[str, ...] = DEFAULT_OBJECTIVES
    trials: int | None = Field(default=None, ge=1)
    hours: float | None = Field(default=None, gt=0)
    request_rate: float | None = Field(default=None, gt=0)
    concurrency: int | None = Field(default=None, ge=1, le=100_000)
    emulate: str | None = None
    live: bool = False
    base_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    energy_gpu: str = "H100-SXM"  # emulated where there is no NVML to read
    allow_gpu_settings: bool = False
    vllm: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    window_s: float = Field(default=60.0, gt=0, le=86400.0)
    startup_deadline_s: float = Field(default=1800.0, gt=0)
    sampler: SamplerName = "auto"
    seed: int = Field(default=0, ge=0, lt=2**31)

    @field_validator("slo", "objective")
    @classmethod
    def _readable(cls, texts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        parse = Slo.parse if info.field_name == "slo" else Objective.parse
        try:
            parsed = [parse(text) for text in texts]
        except UsageError as error:
            raise ValueError(str(error)) from None
        metrics = [p.metric for p in parsed]
        if twice := {m for m in metrics if metrics.count(m) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} is given twice")
        return texts

    @model_validator(mode="after")
    def _together(self) -> StudySpec:
        if not self.objective:
            raise ValueError("at least one objective is needed")
        if self.request_rate is not None and self.concurrency is not None:
            raise ValueError(
                "request_rate (open loop) and concurrency (closed loop) exclude each other"
            )
        if self.base_url is not None and self.emulate is not None:
            raise ValueError("base_url (a running server) and emulate exclude each other")
        if self.live and self.emulate is None:
            raise ValueError("live is for the emulator (--emulate GPU); a vLLM is always live")
        return self

    @property
    def slos(self) -> tuple[Slo, ...]:
        """The SLOs, parsed."""
        return tuple(Slo.parse(text) for text in self.slo)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, parsed."""
        return tuple(Objective.parse(text) for text in self.objective)

    @property
    def load(self) -> Load | None:
        """The load asked for; None leaves it to the workload."""
        if self.request_rate is not None:
            return Load(request_rate=self.request_rate)
        if self.concurrency is not None:
            return Load(concurrency=self.concurrency)
        return None

    @property
    def budget_s(self) -> float:
        """The time budget, s; infinite if only trials are counted."""
        return math.inf if self.hours is None else self.hours * 3600.0


def spec_from(path: Path | None, options: Mapping[str, Any]) -> StudySpec:
    """Merge a STUDY.yaml with command-line options, which win; an option that is None is absent.

    Paths in the file are relative to it, paths in options to the present folder; both become
    absolute, so that the study can be resumed from anywhere. Raises `UsageError`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    data = _absolute(given, Path.cwd())
    if path is not None:
        data = {**_absolute(read_mapping(path), path.absolute().parent), **data}
    if "model" not in data:
        raise UsageError("no model: say which with --model, or give a STUDY.yaml")
    spec = validate("the command line" if path is None else str(path), data, StudySpec)
    if spec.trials is None and spec.hours is None:
        raise UsageError("no budget: say how long with --hours or --trials")
    return spec


def _absolute(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths in a spec absolute; shipped names and models on a hub stay."""
    found = dict(data)
    for field in ("model", "workload", "space"):
        value = found.get(field)
        if isinstance(value, str):
            path = folder / Path(value).expanduser()
            is_path = path.is_dir() if field == "model" else value.endswith((".yaml", ".yml"))
            found[field] = str(path) if is_path else value
    return found
