"""The store: Optuna's tables and ours side by side in one SQLite file or PostgreSQL database."""

from tuner.store.lock import study_lock
from tuner.store.rows import (
    Answers,
    EventRow,
    Owner,
    RepeatKind,
    RepeatRow,
    StudyIdentity,
    StudySummary,
    Took,
    TrialRow,
    TrialState,
)
from tuner.store.store import Store

__all__ = [
    "Answers",
    "EventRow",
    "Owner",
    "RepeatKind",
    "RepeatRow",
    "Store",
    "StudyIdentity",
    "StudySummary",
    "Took",
    "TrialRow",
    "TrialState",
    "study_lock",
]
