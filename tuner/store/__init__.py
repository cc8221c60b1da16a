"""The store: Optuna's tables and ours side by side in one SQLite file or PostgreSQL database."""

from tuner.store.lock.study_lock import study_lock
from tuner.store.rows import (
    UNKNOWN_MODEL,
    Answers,
    ComparisonPoint,
    EventRow,
    Grades,
    ProbeKind,
    RepeatKind,
    RepeatRow,
    StudyIdentity,
    StudySummary,
    TrialOwner,
    TrialRow,
    TrialState,
)
from tuner.store.store import Store

__all__ = [
    "UNKNOWN_MODEL",
    "Answers",
    "ComparisonPoint",
    "EventRow",
    "Grades",
    "ProbeKind",
    "RepeatKind",
    "RepeatRow",
    "Store",
    "StudyIdentity",
    "StudySummary",
    "TrialOwner",
    "TrialRow",
    "TrialState",
    "study_lock",
]
