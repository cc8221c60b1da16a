"""The store: Optuna's tables and ours side by side in one SQLite file or PostgreSQL database."""

from tuner.store.lock import study_lock
from tuner.store.rows import EventRow, Owner, StudyIdentity, StudySummary, TrialRow, TrialState
from tuner.store.store import Store

__all__ = [
    "EventRow",
    "Owner",
    "Store",
    "StudyIdentity",
    "StudySummary",
    "TrialRow",
    "TrialState",
    "study_lock",
]
