"""Finds the vLLM configurations that use the least energy while meeting a latency SLO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.report.study_results import StudyResults

__version__ = "0.1.0"

DEFAULT_STORE = "results/tuner.db"


def load_study(name: str, store: str = DEFAULT_STORE) -> StudyResults:
    """Read a study, for a notebook: `tuner.load_study("night").to_pandas()`.

    `store` is a SQLite file or a database URL. Raises `tuner.errors.UsageError` if there is no such
    study.
    """
    from tuner.report.study_results import load_study as load  # `import tuner` stays light

    return load(name, store)
