"""Optuna internals: the private parts of Optuna that the tuner uses.

Only the identity of a trial, `_trial_id`, is also used by `tuner.store.lock.one_writer_storage`.

Optuna does not guarantee any of them. `tests/study/proposals/test_optuna_compat.py` states what the
tuner expects of each; if it fails after an upgrade, change this file.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna import Study
from optuna.trial import FrozenTrial, Trial


def writable_trial(study: Study, frozen: FrozenTrial) -> Trial:
    """Return a trial that accepts attributes and constraints; a frozen trial does not.

    It works for a trial that another process asked for, too.
    """
    return Trial(study, frozen._trial_id)


def show_constraints(study: Study, frozen: FrozenTrial, constraints: Sequence[float]) -> None:
    """Set a trial's constraints as optuna-dashboard knows them: a list without names."""
    study._storage.set_trial_system_attr(frozen._trial_id, "constraints", list(constraints))
