"""Names left out, and studies renamed, deleted and noted: what a store's owner tidies up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import typer
from helpers.records import IDENTITY
from helpers.stored_study import add_night
from helpers.studies import InProcess

from tuner.store import Store, study_lock
from tuner.store.log.log_records import LoggedStudy
from tuner.store.log.measurement_log import MeasurementLog, log_path_of, read_log


@pytest.fixture
def tuner(tmp_path: Path) -> InProcess:
    """A store with one study, which Optuna has too, and its measurement log."""
    made = InProcess(tmp_path)
    made.store_path.parent.mkdir()
    with Store.open(made.store_path, create=True) as store:
        add_night(store, IDENTITY)
        optuna.create_study(study_name="night", storage=store.optuna_storage())
    MeasurementLog(log_of(made, "night")).append(LoggedStudy(IDENTITY, {"max_num_seqs": 256}))
    return made


def log_of(tuner: InProcess, study: str) -> Path:
    return log_path_of(tuner.store_path.with_name("tuner.db.measured"), study)


def optuna_names(tuner: InProcess) -> list[str]:
    return optuna.get_all_study_names(f"sqlite:///{tuner.store_path}")


def test_the_only_study_needs_no_name_anywhere(tuner: InProcess) -> None:
    for words in (("show",), ("status",), ("recommend",), ("report",), ("export", "--csv", "-")):
        done = tuner(*words)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    assert (tuner.folder / "results" / "night.html").exists()
    with Store.open(tuner.store_path, create=False) as store:
        add_night(store, replace(IDENTITY, name="other"))
    for words in (("show",), ("report",), ("export", "--csv", "-"), ("resume",), ("delete",)):
        done = tuner(*words)
        assert done.returncode == 2
        assert "the store holds 2 studies; name one of: night, other" in done.stderr


def test_a_renamed_study_is_another_nowhere(tuner: InProcess) -> None:
    assert tuner("rename", "before-the-upgrade").returncode == 0
    assert [s["name"] for s in json.loads(tuner("list", "--format", "json").stdout)] == [
        "before-the-upgrade"
    ]
    assert optuna_names(tuner) == ["before-the-upgrade"]
    assert not log_of(tuner, "night").exists()
    studies = [line.record for line in read_log(log_of(tuner, "before-the-upgrade"))]
    assert isinstance(studies[-1], LoggedStudy)
    assert studies[-1].identity.name == "before-the-upgrade"


def test_a_name_that_is_taken_keeps_its_log(tuner: InProcess) -> None:
    with Store.open(tuner.store_path, create=False) as store:
        add_night(store, replace(IDENTITY, name="other"))
    theirs = LoggedStudy(replace(IDENTITY, name="other"), {})
    MeasurementLog(log_of(tuner, "other")).append(theirs)
    before = {path: path.read_bytes() for path in log_of(tuner, "other").parent.iterdir()}
    refused = tuner("rename", "night", "other")
    assert refused.returncode == 2 and "a study 'other' already" in refused.stderr
    after = {path: path.read_bytes() for path in log_of(tuner, "other").parent.iterdir()}
    assert after == before


def test_a_study_is_not_renamed_to_its_own_name(tuner: InProcess) -> None:
    done = tuner("rename", "night", "night")
    assert done.returncode == 2
    assert done.stderr == "tuner: study 'night' has that name already; give another\n"


def test_ctrl_c_at_the_question_deletes_nothing(
    tuner: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> bool:
        raise typer.Abort

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("typer.confirm", interrupted)
    done = tuner("delete", "night")
    assert (done.returncode, done.stderr.strip()) == (130, "nothing was deleted")
    assert optuna_names(tuner) == ["night"]


def test_a_deleted_study_leaves_nothing(tuner: InProcess) -> None:
    asked = tuner("delete", "night")
    assert asked.returncode == 2 and "say --yes" in asked.stderr
    assert tuner("delete", "night", "--yes").returncode == 0
    assert json.loads(tuner("list", "--format", "json").stdout) == []
    assert optuna_names(tuner) == []
    assert not log_of(tuner, "night").exists()
    with Store.open(tuner.store_path, create=False) as store:
        add_night(store, IDENTITY)  # the name is free again
        assert len(store.trials("night")) == 7


def test_a_study_that_runs_is_left_alone(tuner: InProcess) -> None:
    with study_lock(tuner.store_path, "night"):
        for words in (("rename", "night", "other"), ("delete", "night", "--yes")):
            refused = tuner(*words)
            assert refused.returncode == 3 and "process" in refused.stderr
        assert tuner("note", "night", "the night before").returncode == 0
    assert optuna_names(tuner) == ["night"]


def test_a_note_is_shown_where_the_study_is(tuner: InProcess) -> None:
    assert tuner("note", "before the driver update").returncode == 0
    for words in (("list",), ("show",)):
        assert "before the driver update" in tuner(*words).stdout
    assert json.loads(tuner("list", "--format", "json").stdout)[0]["note"]
    assert tuner("note", "night", "").returncode == 0
    assert "driver update" not in tuner("list").stdout


def test_names_that_cannot_be(tuner: InProcess) -> None:
    with Store.open(tuner.store_path, create=False) as store:
        add_night(store, replace(IDENTITY, name="other"))
    for words, says in (
        (("rename", "night", "other"), "there is a study 'other' already"),
        (("rename", "night", "../x"), "cannot be a study's name"),
        (("rename", "nigth", "x"), "did you mean 'night'"),
        (("delete", "nigth", "--yes"), "did you mean 'night'"),
    ):
        done = tuner(*words)
        assert done.returncode == 2 and says in done.stderr
    assert log_of(tuner, "night").exists() and optuna_names(tuner) == ["night"]
