# ruff: noqa: D102 - Optuna describes its own methods
"""Optuna storage of a study that this process alone writes: a trial is read once a change.

Optuna reads a trial that runs again for each of its steps, from seven tables: some fifteen times
until it is told. Who holds a study's lock knows what it wrote.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy


class OneWriterStorage(BaseStorage):
    """Passes each write through to `behind`, and reads from it what a write has changed.

    What other processes write of a trial is not seen: only for the holder of the study's lock.
    Raises what `behind` raises.
    """

    def __init__(self, behind: BaseStorage) -> None:
        self._behind = behind
        self._trials: dict[int, dict[int, FrozenTrial]] = {}  # by study and trial; finished or not
        self._study_of: dict[int, int] = {}
        self._changed: set[int] = set()  # trials that were written since they were read

    @contextmanager
    def _writing(self, trial_id: int) -> Iterator[FrozenTrial | None]:
        """Give a copy of what is known of a trial, to be changed as the storage is.

        None where it has to be read anyway. It is read again if the write fails.
        """
        trials = self._trials.get(self._study_of.get(trial_id, -1), {})
        is_known = trial_id in trials and trial_id not in self._changed
        changed = copy.copy(trials[trial_id]) if is_known else None
        self._changed.add(trial_id)
        yield changed
        if changed is not None:
            trials[trial_id] = changed
            self._changed.discard(trial_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        study_id = self._study_of.get(trial_id)
        if study_id is None:
            return self._behind.get_trial(trial_id)
        if trial_id in self._changed:
            self._trials[study_id][trial_id] = self._behind.get_trial(trial_id)
            self._changed.discard(trial_id)
        return self._trials[study_id][trial_id]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if study_id not in self._trials:
            self._read_all(study_id)
        for trial_id in [one for one in self._changed if self._study_of.get(one) == study_id]:
            self.get_trial(trial_id)
        found = [t for t in self._trials[study_id].values() if states is None or t.state in states]
        found.sort(key=lambda trial: trial.number)
        return copy.deepcopy(found) if deepcopy else found

    def _read_all(self, study_id: int) -> None:
        trials = self._behind.get_all_trials(study_id, deepcopy=False)
        self._trials[study_id] = {trial._trial_id: trial for trial in trials}
        self._study_of |= dict.fromkeys(self._trials[study_id], study_id)

    def _forget(self, study_id: int) -> None:
        for trial_id in self._trials.pop(study_id, {}):
            del self._study_of[trial_id]
            self._changed.discard(trial_id)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        try:
            trial_id = self._behind.create_new_trial(study_id, template_trial)
        except BaseException:
            self._forget(study_id)  # the trial may be there all the same
            raise
        if study_id in self._trials:
            self._study_of[trial_id] = study_id
            self._changed.add(trial_id)
        return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        with self._writing(trial_id) as trial:
            self._behind.set_trial_param(trial_id, param_name, param_value_internal, distribution)
            if trial is not None:
                value = distribution.to_external_repr(param_value_internal)
                trial.params = {**trial.params, param_name: value}
                trial.distributions = {**trial.distributions, param_name: distribution}

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        self._changed.add(trial_id)
        return self._behind.set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._changed.add(trial_id)
        self._behind.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id) as trial:
            self._behind.set_trial_user_attr(trial_id, key, value)
            if trial is not None:
                trial.user_attrs = {**trial.user_attrs, key: _as_stored(value)}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id) as trial:
            self._behind.set_trial_system_attr(trial_id, key, value)
            if trial is not None:
                trial.system_attrs = {**trial.system_attrs, key: _as_stored(value)}

    # What is of a study, or never changes, is asked for as it is.

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return self._behind.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._forget(study_id)
        self._behind.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._behind.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._behind.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._behind.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._behind.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._behind.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._behind.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._behind.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._behind.get_all_studies()

    def remove_session(self) -> None:
        self._behind.remove_session()


def _as_stored(value: Any) -> Any:
    """Return an attribute as it is read: a tuple comes back as a list."""
    return json.loads(json.dumps(value))
