"""Workloads: their summary, and new ones made of a trace."""

from __future__ import annotations

from pathlib import Path

from tuner.catalog.shipped import shipped_names
from tuner.load.generations.import_prompts import import_prompts
from tuner.load.importers.import_workload import import_workload
from tuner.load.importers.reading import Reading
from tuner.load.summary import SUMMARY_REQUESTS, WorkloadSummary, summarize
from tuner.load.workload import Workload, load_workload

__all__ = [
    "Reading",
    "Workload",
    "WorkloadSummary",
    "import_prompts",
    "import_workload",
    "shipped",
    "summarized",
]


def summarized(
    name: str | Path, requests: int = SUMMARY_REQUESTS
) -> tuple[Workload, WorkloadSummary]:
    """Return a shipped workload or one of a YAML file, with statistics of that many requests."""
    workload = load_workload(str(name))
    return workload, summarize(workload, requests)


def shipped() -> list[Workload]:
    """Return the workloads that ship with the package, by name."""
    return [load_workload(name) for name in shipped_names("workloads")]
