"""Finds the vLLM configurations that use the least energy while meeting a latency SLO.

This module exports the public API; each name is imported at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner import plot
    from tuner.api.runs import aresume, arun, measure, preview, resume, run, study_spec
    from tuner.api.studies import compare_studies, list_studies, recommend, write_report
    from tuner.configuration import Configuration
    from tuner.devices.meter import Meter
    from tuner.measurement.listener import NoteListener
    from tuner.report.study_results import StudyResults
    from tuner.servers.server import Server
    from tuner.slo import Slo
    from tuner.spec.search_space import SearchSpace
    from tuner.spec.settings import parse_settings
    from tuner.spec.study import StudySpec
    from tuner.study.listener import Listener, NullListener

__version__ = "0.1.0"

DEFAULT_STORE = "results/tuner.db"

_HOMES = {
    "Configuration": "tuner.configuration",
    "Listener": "tuner.study.listener",
    "Meter": "tuner.devices.meter",
    "NoteListener": "tuner.measurement.listener",
    "NullListener": "tuner.study.listener",
    "SearchSpace": "tuner.spec.search_space",
    "Server": "tuner.servers.server",
    "Slo": "tuner.slo",
    "StudyResults": "tuner.report.study_results",
    "StudySpec": "tuner.spec.study",
    "aresume": "tuner.api.runs",
    "arun": "tuner.api.runs",
    "compare_studies": "tuner.api.studies",
    "list_studies": "tuner.api.studies",
    "measure": "tuner.api.runs",
    "parse_settings": "tuner.spec.settings",
    "preview": "tuner.api.runs",
    "recommend": "tuner.api.studies",
    "resume": "tuner.api.runs",
    "run": "tuner.api.runs",
    "study_spec": "tuner.api.runs",
    "write_report": "tuner.api.studies",
}

__all__ = [
    "DEFAULT_STORE",
    "Configuration",
    "Listener",
    "Meter",
    "NoteListener",
    "NullListener",
    "SearchSpace",
    "Server",
    "Slo",
    "StudyResults",
    "StudySpec",
    "aresume",
    "arun",
    "compare_studies",
    "list_studies",
    "load_study",
    "measure",
    "parse_settings",
    "plot",
    "preview",
    "recommend",
    "resume",
    "run",
    "study_spec",
    "write_report",
]


def load_study(name: str, store: str = DEFAULT_STORE) -> StudyResults:
    """Read a study, for a notebook: `tuner.load_study("night").recommendation`.

    `store` is a SQLite file or a database URL. Raises `tuner.errors.UsageError` if there is no such
    study.
    """
    from tuner.report.study_results import load_study as load  # `import tuner` stays light

    return load(name, store)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name == "plot":
        return import_module("tuner.plot")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tuner' has no attribute '{name}'")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
