"""Optuna internals: the private parts of Optuna that the tuner uses, all of them.

Optuna promises none of these. `tests/study/proposals/test_optuna_compat.py` says what each has to
do; when it fails after an upgrade, this file is the one to change.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial

from tuner.configuration import Value


def writable_trial(study: Study, frozen: FrozenTrial) -> Trial:
    """Return a trial that takes attributes and constraints, which a frozen one does not.

    Also for a trial that another process asked for.
    """
    return Trial(study, frozen._trial_id)


def show_constraints(study: Study, frozen: FrozenTrial, constraints: Sequence[float]) -> None:
    """Set a trial's constraints as optuna-dashboard knows them: a list without names."""
    study._storage.set_trial_system_attr(frozen._trial_id, "constraints", list(constraints))


def contains(distribution: BaseDistribution, parameter: Value) -> bool:
    """Say whether a distribution holds a parameter. Raises `ValueError` for one of another kind."""
    if isinstance(distribution, CategoricalDistribution):
        return parameter in distribution.choices
    return distribution._contains(distribution.to_internal_repr(parameter))
