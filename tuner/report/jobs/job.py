"""Study job: what every kind of job writes down of a study.

A job runs `tuner resume` where the store has the study already, else `tuner run`. So it may be
stopped and started again as often as the cluster likes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from tuner.errors import UsageError
from tuner.host.plain_text import plain_text
from tuner.report.exports.yaml_text import yaml_text
from tuner.spec.study import StudySpec
from tuner.study.preview.run_preview import RunPreview

# by the name that `--format` takes
JOBS: Mapping[str, str] = MappingProxyType(
    {"sbatch": "slurm:sbatch_script", "k8s-job": "kubernetes:kubernetes_job"}
)
GRACE_S = 300  # to stop the server, restore the limits and store what is known
FINAL_EXIT_CODES = (2, 4, 5)  # another start would change nothing
_MARGIN = 1.15  # a launch or a confirmation may take longer than was assumed
_LABEL = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class StudyJob:
    """A study to be run by a cluster.

    Attributes:
        study: its name in the store.
        label: the same as a DNS label.
        spec_text: a STUDY.yaml with every option that was given.
        gpus: how many it needs; None says all of the node.
        lasts_s: how long it takes at most, s.
        sets_limits: whether it may change limits of GPUs.
        is_emulated: whether it needs no GPU.
        files: what the spec names by its path; it has to be there where the job runs.
    """

    study: str
    label: str
    spec_text: str
    gpus: int | None
    lasts_s: float
    sets_limits: bool
    is_emulated: bool
    files: tuple[str, ...] = ()


def study_job(would: RunPreview, study: str) -> StudyJob:
    """Return the job of what a run would do; raises `UsageError` for what no job can do."""
    spec = would.spec
    if spec.ray is not None:  # its driver is a job of its own
        raise UsageError(
            "--ray has a cluster of its own; docs/cards.md has the job for Slurm and Kubernetes"
        )
    options = _options(spec, study)
    texts = [part for text in options.values() if isinstance(text, str) for part in text.split("+")]
    return StudyJob(
        study=study,
        label=_LABEL.sub("-", study.lower())[:50].strip("-") or "study",
        spec_text=yaml_text(options),
        gpus=_gpus(spec),
        lasts_s=_MARGIN * would.lasts_s[1] + GRACE_S,
        sets_limits=spec.allow_gpu_settings and not spec.read_only_device,
        is_emulated=spec.emulate is not None or spec.base_url is not None,
        files=tuple(text for text in texts if text.startswith("/")),
    )


def job_text(name: str, job: StudyJob) -> str:
    """Return the text of a kind of job, one of `JOBS`."""
    module, function = JOBS[name].split(":")
    made: str = getattr(import_module(f"tuner.report.jobs.{module}"), function)(job)
    return plain_text(made)


def _options(spec: StudySpec, study: str) -> dict[str, object]:
    said = spec.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return {"study": study} | said


def _gpus(spec: StudySpec) -> int | None:
    if spec.cards == "all":
        return None
    if spec.cards is not None:
        return spec.cards * (spec.gpus or 1)
    return spec.gpus
