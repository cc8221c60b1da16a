"""What one writer remembers of its trials is what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from tuner.store import Store
from tuner.store.lock.one_writer_storage import OneWriterStorage

Step = Callable[[optuna.Study, Trial, int], object]
STEPS: dict[str, Step] = {
    "float": lambda _, trial, n: trial.suggest_float("x", 1.0, 8.0, log=True),
    "choice": lambda _, trial, n: trial.suggest_categorical("c", ["a", None, 3]),
    "attribute": lambda _, trial, n: trial.set_user_attr(f"a{n % 3}", ("b", n, {"c": [None]})),
    "constraint": lambda _, trial, n: trial.set_constraint(f"k{n}", float(n)),
    "point": lambda study, _, n: study.enqueue_trial({"x": 1.0 + n % 5}, user_attrs={"n": n}),
    "told": lambda study, trial, n: study.tell(trial.number, [float(n)]),
    "failed": lambda study, trial, n: study.tell(trial.number, state=TrialState.FAIL),
}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseStorage]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with Store.open(tmp_path_factory.mktemp("store") / "tuner.db", create=True) as store:
        yield store.optuna_storage()


def known(storage: BaseStorage, study: optuna.Study) -> list[dict[str, Any]]:
    def of(trial: FrozenTrial) -> dict[str, Any]:
        return {name.lstrip("_"): value for name, value in vars(trial).items()}

    return [of(trial) for trial in storage.get_all_trials(study._study_id)]


@settings(max_examples=15)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_it_reads_what_the_storage_behind_it_reads(behind: BaseStorage, steps: list[str]) -> None:
    storage = OneWriterStorage(behind)
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    for n, name in enumerate(steps):
        try:
            STEPS[name](study, trial, n)
        except (RuntimeError, ValueError):
            trial = study.ask()  # it was told
        assert known(storage, study) == known(behind, study), name
        assert storage.get_trial(trial._trial_id) == behind.get_trial(trial._trial_id)


def test_what_was_there_before_is_known_and_handed_out_as_a_copy(behind: BaseStorage) -> None:
    study = optuna.create_study(storage=behind)
    study.enqueue_trial({"x": 2.0})
    storage = OneWriterStorage(behind)
    trials = storage.get_all_trials(study._study_id)
    assert known(storage, study) == known(behind, study)
    trials[0].params["x"] = "changed by a caller"
    assert known(storage, study) == known(behind, study)
    assert storage.get_all_trials(study._study_id, states=(TrialState.COMPLETE,)) == []


def test_a_write_that_fails_is_read_again(
    behind: BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = OneWriterStorage(behind)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    trial.set_user_attr("a", 1)

    def half_done(trial_id: int, key: str, value: object) -> None:
        write(trial_id, key, value)
        raise OSError("the connection was lost after the commit")

    write = behind.set_trial_user_attr
    monkeypatch.setattr(behind, "set_trial_user_attr", half_done)
    with pytest.raises(OSError):
        trial.set_user_attr("a", 2)
    assert storage.get_trial(trial._trial_id).user_attrs["a"] == 2


def test_a_trial_whose_creation_failed_after_the_commit_is_found(
    behind: BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = OneWriterStorage(behind)
    study = optuna.create_study(storage=storage)
    first = study.ask()
    first.set_user_attr("a", 1)

    def half_done(study_id: int, template: FrozenTrial | None = None) -> int:
        create(study_id, template)
        raise OSError("the connection was lost after the commit")

    create = behind.create_new_trial
    with monkeypatch.context() as lost:
        lost.setattr(behind, "create_new_trial", half_done)
        with pytest.raises(OSError):
            study.enqueue_trial({"x": 1.0})
    first.set_user_attr("a", 2)
    assert known(storage, study) == known(behind, study)
    assert len(storage.get_all_trials(study._study_id, states=(TrialState.WAITING,))) == 1
    study.tell(first.number, [1.0])
    assert known(storage, study) == known(behind, study)
