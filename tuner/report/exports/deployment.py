"""Deployment: the server and the GPU limits that every export writes down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.analysis.load_text import load_text
from tuner.analysis.outcomes import kind_of_study
from tuner.analysis.recommendation.recommend import Recommendation
from tuner.configuration import MODEL, Value
from tuner.host.redaction import is_secret_name, redacted
from tuner.metrics import METRICS, Metric
from tuner.records import Measurement, Source
from tuner.report.labels import number
from tuner.report.sentences.checks_text import check_lines, slo_sentence
from tuner.report.sentences.saving_text import confirmation_text, headline
from tuner.servers.registry import flag_rules
from tuner.slo import Slo
from tuner.spec.stored import StoredSpec
from tuner.store.rows import TrialRow

PORT = 8000
CACHE_FOLDER = "/cache"  # in a container: weights, compiled kernels and whatever else needs a home
_LONGEST_NAME = 40  # so that what is named after it stays within the 63 letters of a DNS label
_RELEASE = re.compile(r"(\d+\.\d+\.\d+(?:\.post\d+)?)(?:\+.*)?")


@dataclass(frozen=True, slots=True)
class MeasuredFigure:
    """One metric of the deployed trial, and whether it was measured or emulated."""

    name: str
    value: float
    unit: str
    source: Source


@dataclass(frozen=True, slots=True)
class Deployment:
    """One server of vLLM and the GPU limits that belong to it.

    Attributes:
        name: for services and files: a DNS label made of the model's name.
        flags: of `vllm serve`, in their Python spelling, those that all trials shared included.
        environment: variables of the server, as text.
        withheld: flags and variables that look like secrets; their values are in no export.
        gpu: the name of the GPU that it was measured on.
        gpus: how many the server takes.
        power_limit_w: per GPU; None leaves it as it is found. `sm_clock_mhz` likewise.
        release: vLLM's version as a tag of its images; None if it was measured with none.
        about: lines about where this comes from, without line breaks.
        figures: every metric of the trial, in the order of `METRICS`.
        is_omni: whether vLLM-Omni serves it, which makes images and videos.
        slos: what was asked for.
        energy_high_j: per unit of output, the upper end of its 95 % interval; without, the value.
    """

    name: str
    model: str
    flags: Mapping[str, Value]
    environment: Mapping[str, str]
    withheld: tuple[str, ...]
    gpu: str
    gpus: int
    power_limit_w: float | None
    sm_clock_mhz: int | None
    release: str | None
    about: tuple[str, ...]
    figures: tuple[MeasuredFigure, ...] = ()
    is_omni: bool = False
    slos: tuple[Slo, ...] = ()
    energy_high_j: float | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of `vllm serve`: the model and its flags."""
        omni = ("--omni",) if self.is_omni else ()
        flags = (flag_rules().word(name, value) for name, value in self.flags.items())
        return (self.model, *omni, *flags)

    @property
    def has_limits(self) -> bool:
        """Whether the GPU has to be set."""
        return self.power_limit_w is not None or self.sm_clock_mhz is not None

    @property
    def image(self) -> str:
        """The container image of vLLM in the version that was measured."""
        which = "vllm-omni" if self.is_omni else "vllm-openai"
        return f"vllm/{which}:{'latest' if self.release is None else 'v' + self.release}"

    @property
    def model_folder(self) -> str | None:
        """The model's folder on this machine, if it is one."""
        return self.model if Path(self.model).is_absolute() else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The variables with secrets, which the user must provide if the server needs them."""
        return tuple(dict.fromkeys(("HF_TOKEN", *(n for n in self.withheld if n.isupper()))))


def deployment(recommendation: Recommendation) -> Deployment:
    """Return what deploys a recommendation."""
    r = recommendation
    whole = r.best.configuration.with_fixed(StoredSpec.of(r.study).fixed)
    model = str(whole.flags.get(MODEL, r.study.model))
    flags = {n: v for n, v in whole.flags.items() if n != MODEL}
    kept = {n: v for n, v in flags.items() if not _is_secret(n, v)}
    variables = {n: v for n, v in whole.environment.items() if not _is_secret(n, v)}
    every = (*flags, *whole.environment)
    power_limit_w = whole.device.get("power_limit_w")
    sm_clock_mhz = whole.device.get("sm_clock_mhz")
    release = _RELEASE.fullmatch(r.study.server_version)
    return Deployment(
        name=_label(r.study.model),
        model=model,
        flags=kept,
        environment={name: _as_text(value) for name, value in variables.items()},
        withheld=tuple(n for n in every if n not in kept and n not in variables),
        gpu=r.study.gpu,
        gpus=flag_rules().gpus_used(whole),
        power_limit_w=None if power_limit_w is None else float(power_limit_w),
        sm_clock_mhz=None if sm_clock_mhz is None else int(sm_clock_mhz),
        release=None if release is None else release[1],
        about=_about(r),
        figures=_figures(r.best),
        is_omni=not kind_of_study(r.study).output.is_text,
        slos=r.slos,
        energy_high_j=_energy_high_j(r),
    )


def _energy_high_j(r: Recommendation) -> float | None:
    shown = r.summary_of(r.best)
    interval = shown.energy_interval_j
    return shown.energy_per_unit_j if interval is None else interval[1]


def comments(lines: tuple[str, ...]) -> str:
    """Return lines as comments, of which none can end early."""
    return "".join(f"# {' '.join(line.split())}".rstrip() + "\n" for line in lines)


def plain(value: float) -> str:
    """Return a number without a fraction that says nothing."""
    return f"{value:.10g}"


def _is_secret(name: str, value: Value) -> bool:
    return is_secret_name(name) or (isinstance(value, str) and redacted(value) != value)


def _as_text(value: Value) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _label(model: str) -> str:
    last = model.rstrip("/").rsplit("/", 1)[-1].lower()
    words = re.sub(r"[^a-z0-9]+", "-", last)[:_LONGEST_NAME]
    return f"vllm-{words}".replace("--", "-").strip("-")


def _figures(trial: TrialRow) -> tuple[MeasuredFigure, ...]:
    found = trial.measurement
    if found is None:
        return ()
    return tuple(
        MeasuredFigure(name, found.metrics[name], known.unit, _source(known, found))
        for name, known in METRICS.items()
        if name in found.metrics
    )


def _source(metric: Metric, found: Measurement) -> Source:
    """Return `EMULATED` if any part of a metric is; energy depends on the latencies too."""
    sources = {found.latency_source}
    if metric.unit == "W" or metric.unit.startswith("J/"):
        sources.add(found.energy_source)
    return Source.EMULATED if Source.EMULATED in sources else Source.MEASURED


def _about(r: Recommendation) -> tuple[str, ...]:
    study, best = r.study, r.best
    shown = r.summary_of(best)
    begin, _ = r.measured_at
    lines = [
        f"tuner: study {study.name}, trial {best.number}, {begin:%Y-%m-%d %H:%M} UTC",
        f"{study.model}, workload {study.workload_name}, {load_text(study, best.configuration)}",
        f"{study.gpu}, driver {study.driver or 'unknown'}, server {study.server_version}",
        f"SLO: {', '.join(str(slo) for slo in r.slos) or 'none'}",
        f"{shown.kind.energy}: {number(shown.energy_per_unit_j)}",
        str(headline(r)),
        confirmation_text(shown),
    ]
    if (verdict := slo_sentence(r)) is not None:
        lines.append(verdict)
    lines += check_lines(r)
    if (profile := best.configuration.device.get("power_profile")) is not None:
        lines.append(
            f"note: measured with the workload power profile '{profile}'; request it on each GPU "
            "(nvidia-smi power-profiles)"
        )
    if r.emulated:
        lines.append(f"EMULATED {' and '.join(r.emulated)}: not measured on a real device")
    lines += [f"note: {warning}" for warning in r.warnings]
    return tuple(redacted(line) for line in lines)
