"""StudySpec: what a study measures and how, from the command line or a STUDY.yaml."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from tuner.catalog.yaml_files import joined_names, read_mapping, validate
from tuner.devices.limit_control import Access
from tuner.errors import UsageError
from tuner.host.plain_text import plain_text
from tuner.host.redaction import redacted
from tuner.measurement.precision import Precision, watched_percentiles
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Load
from tuner.slo import Slo
from tuner.spec.baseline import Baseline, baseline_of
from tuner.spec.objective import Objective, workload_kind

_CHECKS_SHARE = 0.1  # of the hours
_LOADS_SHARE = 0.3  # with operating points
_WARMUP_SHARE = 1.0  # of the longest window: the limit for the load to become steady
# Times the search's window: a hundred requests do not tell p99 on traffic not seen.
_CONFIRM_TIMES = 4.5
_CONFIRM_WINDOW_S = 180.0

SamplerName = Literal["gp", "tpe", "random"]
TrafficKind = Literal["representative", "drawn"]

STUDY_NAME = re.compile(r"\w[\w.-]*")  # of the whole name
LONGEST_STUDY_NAME = 200  # bytes: with what is added, the name of a file or folder
_LONGEST_PART = 255  # of a file's name, on every file system of Linux


class StudySpec(BaseModel):
    """Everything that decides what a study measures and how.

    `trials` and `hours` are the budget: the study ends with whichever is spent first. Hours are
    wall-clock time, and virtual time on the embedded emulator.

    A steady window lasts at least `min_window_s` and at most `max_window_s`. In between it ends
    once two things hold. Half of the 95 % interval of the energy per token, image or second of
    video is at most `precision` of its value. For each SLO's percentile that half is at most
    `percentile_precision` of its value, or the interval lies on one side of the bound. `window_s`
    in a file fixes the length: it sets both ends. Space, objectives and windows have defaults that
    fit what the workload asks for.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    study: str | None = None
    model: str = Field(min_length=1, max_length=4095)
    workload: str = "chat"
    space: str = Field(default_factory=lambda known: workload_kind(known).space)
    slos: tuple[InstanceOf[Slo], ...] = Field(
        default=(), validation_alias="slo", serialization_alias="slo"
    )
    objectives: tuple[InstanceOf[Objective], ...] = Field(
        default_factory=lambda known: tuple(map(Objective.parse, workload_kind(known).objectives)),
        validation_alias="objective",
        serialization_alias="objective",
    )
    trials: int | None = Field(default=None, ge=1)
    hours: float | None = Field(default=None, gt=0)
    request_rate: float | None = Field(default=None, gt=0)
    request_rate_share: float | None = Field(default=None, gt=0, le=2)  # `request_rate: 0.7x`
    concurrency: int | None = Field(default=None, ge=1, le=100_000)
    emulate: str | None = None
    engine: str | None = None  # profile of the emulated server; the newest one without
    live: bool = False
    base_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    gpus: int | None = Field(default=None, ge=1, le=4096)  # a server may use; None: all
    cards: Annotated[int, Field(ge=1, le=1024)] | Literal["all"] | None = None  # workers
    ray: str | None = Field(default=None, min_length=1)  # address of a Ray cluster
    baseline: Baseline | None = None
    allow_output_changes: bool = False
    quality: str | None = None
    quality_drop: float = Field(default=0.01, ge=0, lt=1)
    picture_drop: float = Field(default=0.3, ge=0, lt=1)  # of the mean SSIM to the baseline's
    energy_gpu: str = "H100-SXM"  # used to emulate energy where there is no NVML
    allow_gpu_settings: bool = False
    read_only_device: bool = False
    vllm: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    min_window_s: float = Field(
        default_factory=lambda known: workload_kind(known).window_s[0], gt=0, le=86400.0
    )
    max_window_s: float = Field(
        default_factory=lambda known: workload_kind(known).window_s[1], gt=0, le=86400.0
    )
    precision: float = Field(default=0.02, gt=0, lt=1)
    percentile_precision: float = Field(default=0.05, gt=0, lt=1)
    startup_deadline_s: float = Field(default=1800.0, gt=0)
    fork_servers: bool = False  # those of the search, from processes that have imported vLLM
    patience_s: float = Field(default=3600.0, ge=0, le=86400.0)  # with a machine that is busy
    client_priority: bool = True  # of the load client over other processes, where that is allowed
    sampler: SamplerName = "gp"
    seed: int = Field(default=0, ge=0, lt=2**31)
    racing: bool = False  # a trial that has lost to an earlier one on the same requests is ended
    confirm: bool = True
    checks: bool = True  # after the confirmation: stress, idle power, headroom
    headroom: float | None = Field(default=None, ge=1, le=10)  # SLOs hold at so many times the load
    # operating points of what can be deployed, as shares of its capacity under the SLO
    loads: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    confirm_repeats: int = Field(default=4, ge=2, le=20)
    confirm_window_s: float | None = Field(default=None, gt=0, le=86400.0)
    # what configurations are compared on; see `tuner.evaluation.traffic`
    traffic: TrafficKind = "representative"
    stop_when_flat: bool | None = None

    @field_validator("slos", "objectives", mode="before")
    @classmethod
    def _parsed(cls, texts: Any, info: ValidationInfo) -> Any:
        """Parse each text once; keep values that are parsed already, refuse anything but a list."""
        if not isinstance(texts, list | tuple):
            return texts
        parse = Slo.parse if info.field_name == "slos" else Objective.parse
        try:
            return tuple(parse(text) if isinstance(text, str) else text for text in texts)
        except UsageError as error:
            raise ValueError(str(error)) from None

    @field_validator("slos", "objectives")
    @classmethod
    def _once_each(cls, bounds: tuple[Any, ...]) -> tuple[Any, ...]:
        metrics = [bound.metric for bound in bounds]
        if twice := {m for m in metrics if metrics.count(m) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} is given twice")
        return bounds

    @field_serializer("slos", "objectives")
    def _as_written(self, bounds: tuple[Slo | Objective, ...]) -> list[str]:
        return [bound.text for bound in bounds]

    @model_validator(mode="before")
    @classmethod
    def _share_of_capacity(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("gpus") == "all":  # a worker on each
            data = {**data, "gpus": None, "cards": "all"}
        rate = data.get("request_rate") if isinstance(data, dict) else None
        if not isinstance(rate, str) or not rate.endswith("x"):
            return data
        return {**data, "request_rate": None, "request_rate_share": rate.removesuffix("x")}

    @field_validator("loads", mode="before")
    @classmethod
    def _shares(cls, loads: Any) -> Any:
        """Read `0.25x,0.5x,1x`, or a list of such shares."""
        texts = loads.split(",") if isinstance(loads, str) else loads
        if not isinstance(texts, list | tuple):
            return texts
        shares = [t.strip().removesuffix("x") if isinstance(t, str) else t for t in texts]
        try:
            return tuple(sorted({float(share) for share in shares}))
        except (TypeError, ValueError):
            raise ValueError("write shares of the capacity, like 0.25x,0.5x,0.75x,1x") from None

    @field_validator("study")
    @classmethod
    def _name_of_a_folder(cls, study: str | None) -> str | None:
        if study is not None and STUDY_NAME.fullmatch(study) is None:
            raise ValueError(f"'{study}' is no name; use letters, digits, '.', '_' and '-'")
        if study is not None and len(study.encode()) > LONGEST_STUDY_NAME:
            raise ValueError(f"is longer than {LONGEST_STUDY_NAME} bytes; give a shorter name")
        return study

    @field_validator("model")
    @classmethod
    def _name_or_folder(cls, model: str) -> str:
        if plain_text(model) != model or "\n" in model:
            raise ValueError("holds control characters; give a name or a folder")
        if max(len(part.encode()) for part in model.split("/")) > _LONGEST_PART:
            raise ValueError(
                f"has a part longer than {_LONGEST_PART} bytes; give a name or a folder"
            )
        return model

    @field_validator("base_url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        if url is not None and redacted(url) != url:
            raise ValueError(
                "holds a password or key, which would be stored with the study; leave it out"
            )
        return url

    @field_validator("sampler", mode="before")
    @classmethod
    def _sampler_of_an_older_study(cls, name: Any) -> Any:
        return "gp" if name == "auto" else name

    @model_validator(mode="before")
    @classmethod
    def _fixed_window(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "window_s" not in data:
            return data
        others = {k: v for k, v in data.items() if k != "window_s"}
        limits = ("min_window_s", "max_window_s", "precision", "percentile_precision")
        if both := [name for name in limits if name in others]:
            raise ValueError(
                f"window_s is a fixed length and excludes {', '.join(both)}; leave one of them out"
            )
        length_s = data["window_s"]
        if isinstance(length_s, int | float) and not length_s > 0.0:
            raise ValueError(f"window_s: found {length_s:g}, it has to be greater than 0")
        return {**others, "min_window_s": length_s, "max_window_s": length_s}

    @model_validator(mode="after")
    def _together(self) -> StudySpec:
        if not self.objectives:
            raise ValueError("at least one objective is needed")
        if self.min_window_s > self.max_window_s:
            raise ValueError(
                f"max_window_s is {self.max_window_s:g}, less than min_window_s "
                f"({self.min_window_s:g}); take a longer one, or a fixed length by window_s"
            )
        if self.concurrency is not None and (self.request_rate or self.request_rate_share):
            raise ValueError(
                "request_rate (open loop) and concurrency (closed loop) exclude each other"
            )
        if self.base_url is not None and self.emulate is not None:
            raise ValueError("base_url (a running server) and emulate exclude each other")
        if self.allow_gpu_settings and self.read_only_device:
            raise ValueError(
                "allow_gpu_settings and read_only_device exclude each other: may the run "
                "change the GPUs' limits or not?"
            )
        if self.fork_servers and (self.base_url is not None or self.emulate is not None):
            raise ValueError("fork_servers is for a vLLM that the tuner launches; leave it out")
        if self.loads and not (self.slos and self.makes_checks and self.concurrency is None):
            raise ValueError(
                "loads are shares of what a configuration takes under the SLO: give an slo and a "
                "request_rate, leave --no-confirm and --no-checks out, and let the tuner launch "
                "the server"
            )
        if self.has_cards and (self.base_url is not None or self.port is not None):
            raise ValueError("each card has a server and a port of its own; leave both out")
        if self.live and self.emulate is None:
            raise ValueError(
                "live is for the emulator (--emulate GPU); a real vLLM always runs in real time"
            )
        if self.engine is not None and self.emulate is None:
            raise ValueError("engine is a profile of the emulator; give --emulate GPU too")
        return self

    @property
    def has_cards(self) -> bool:
        """Whether each worker has cards of its own, so that figures of several are compared."""
        return self.cards is not None or self.ray is not None

    @property
    def is_real_time(self) -> bool:
        """Whether servers run and time passes; on the emulator's virtual clock neither does."""
        return self.emulate is None or self.live

    @property
    def access(self) -> Access:
        """What the run may do to real GPUs, including the restore after a crash."""
        return Access.READ if self.read_only_device else Access.SET

    @property
    def stops_when_flat(self) -> bool:
        """Whether the search stops when its front stops growing; by default with a budget in hours.

        A budget in trials is used up in full unless the user says otherwise.
        """
        if self.stop_when_flat is None:
            return self.hours is not None and self.trials is None
        return self.stop_when_flat

    @property
    def load(self) -> Load | None:
        """The requested load; None leaves it to the workload."""
        if self.request_rate is not None:
            return Load(request_rate=self.request_rate)
        if self.concurrency is not None:
            return Load(concurrency=self.concurrency)
        return None

    @property
    def window_plan(self) -> WindowPlan:
        """The length of the steady window and the precision that ends it."""
        shortest_s, longest_s = self.min_window_s, self.max_window_s
        if shortest_s == longest_s:
            return WindowPlan(window_s=longest_s, warmup_limit_s=3.0 * longest_s)
        precision = Precision(
            min_window_s=shortest_s,
            max_window_s=longest_s,
            energy_share=self.precision,
            percentile_share=self.percentile_precision,
            percentiles=watched_percentiles(self.slos),
            bounds=self.slos,
        )
        limit_s = max(3.0 * shortest_s, _WARMUP_SHARE * longest_s)
        return WindowPlan(warmup_limit_s=limit_s, precision=precision)

    @property
    def confirm_window_plan(self) -> WindowPlan:
        """The windows of an open load on traffic that the search does not see."""
        longest_s = self.max_window_s
        length_s = self.confirm_window_s or max(
            longest_s, min(_CONFIRM_WINDOW_S, _CONFIRM_TIMES * longest_s)
        )
        return WindowPlan(window_s=length_s, warmup_limit_s=3.0 * length_s)

    @property
    def checks_s(self) -> float:
        """The part of the hours that is kept for the final checks, s."""
        has_hours = self.makes_checks and self.hours is not None
        share = _LOADS_SHARE if self.loads else _CHECKS_SHARE
        return share * self.budget_s if has_hours else 0.0

    @property
    def makes_checks(self) -> bool:
        """Whether the recommendation is checked; never on a server that others may use."""
        return self.confirm and self.checks and self.base_url is None

    def before_checks(self) -> StudySpec:
        """Return the spec of search and confirmation, whose hours leave room for the checks."""
        if self.hours is None:
            return self
        return self.model_copy(update={"hours": self.hours - self.checks_s / 3600.0})

    @property
    def budget_s(self) -> float:
        """The time budget, s; infinite if only trials are counted."""
        return math.inf if self.hours is None else self.hours * 3600.0


def spec_from(path: Path | None, options: Mapping[str, Any]) -> StudySpec:
    """Merge a STUDY.yaml with command-line options, which override it; None means not given.

    Paths in the file are relative to it, paths in options to the working directory. Both become
    absolute, so that the study can be resumed from anywhere. Raises `UsageError`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    file = read_mapping(path) if path is not None else {}
    is_served = (given.get("base_url") or file.get("base_url")) is not None
    data = _absolute(given, Path.cwd(), is_served)
    if path is not None:
        data = {**_absolute(file, path.absolute().parent, is_served), **data}
    settings = data.pop("set", ())
    if settings or data.get("baseline") is not None:
        data["baseline"] = baseline_of(data.get("baseline"), settings)
    if "model" not in data:
        raise UsageError("no model: say which with --model, or give a STUDY.yaml")
    spec = validate(None if path is None else str(path), data, StudySpec, given)
    if spec.trials is None and spec.hours is None:
        raise UsageError("no budget: say how long with --hours or --trials")
    return spec


_FILES = (".yaml", ".yml", ".jsonl")


def _absolute(data: Mapping[str, Any], folder: Path, is_served: bool) -> dict[str, Any]:
    """Make the paths in a spec absolute; shipped names and names of hub models stay.

    So does the model of a server that runs already, which is the name that it serves.
    """
    found = dict(data)
    if isinstance(space := found.get("space"), str):
        found["space"] = "+".join(
            str(folder / Path(part).expanduser()) if part.endswith((".yaml", ".yml")) else part
            for part in joined_names(space)
        )
    for field in ("model", "workload", "baseline", "quality"):
        value = found.get(field)
        if isinstance(value, str):
            path = folder / Path(value).expanduser()
            is_path = value.endswith(_FILES)
            if field == "model":  # pathlib raises for what is too long for a path
                is_path = not is_served and os.path.isdir(path)  # noqa: PTH112
            found[field] = str(path) if is_path else value
    return found
