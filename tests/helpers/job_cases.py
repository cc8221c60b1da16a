"""A job of a study that a test describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tuner.report.jobs.job import StudyJob, study_job
from tuner.spec.study import StudySpec
from tuner.study.preview.run_preview import preview

Make = Callable[..., StudyJob]
SAID: dict[str, Any] = {
    "model": "Qwen/Qwen3-8B",
    "emulate": "H100-SXM",
    "slo": ["p99_tpot_ms<=25"],
    "request_rate": 4,
    "hours": 8,
}


def made_job(store: str, **more: Any) -> StudyJob:
    given = {name: value for name, value in (SAID | more).items() if value is not None}
    return study_job(preview(StudySpec(**given), store), "night-1")
