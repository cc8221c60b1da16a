"""A store made again from the log: the same trials, the same front, the same numbers in Optuna."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import optuna
import pytest
import yaml
from helpers.scripted import SPACE, infrastructure, physics
from helpers.testbed import OWNER, SPEC, identity
from optuna.trial import TrialState

from tuner.analysis.outcomes import front_of
from tuner.configuration import Configuration, Value
from tuner.errors import OperatorNeededError, UsageError
from tuner.records import Failure, FailureKind, Measurement, Timing
from tuner.store import RepeatKind, Store, StudyIdentity
from tuner.store.log.log_records import LoggedResult, LoggedStudy, RepeatOf
from tuner.store.log.measurement_log import MeasurementLog
from tuner.store.upkeep.checks import check_file, check_studies
from tuner.study.durability.rebuild import rebuild
from tuner.study.proposals.start_points import asked_like, parameters_of, points_to_start_with

DEFAULTS: Mapping[str, Value] = {}


def point(seqs: int, memory: float = 0.5) -> Configuration:
    return Configuration(flags={"max_num_seqs": seqs, "gpu_memory_utilization": memory})


def logged(number: int, configuration: Configuration, result: object = None) -> LoggedResult:
    came = physics(configuration, number) if result is None else result
    assert isinstance(came, Measurement | Failure)
    at = datetime(2026, 3, 1, 22, tzinfo=UTC) - timedelta(hours=number)  # it was set back
    return LoggedResult(
        number, configuration, OWNER, at, at, came, Timing(10.0, None), 10.0, ("warm",)
    )


@pytest.fixture
def study(tmp_path: Path) -> StudyIdentity:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE.model_dump(mode="json", exclude_none=True)))
    spec = SPEC.model_copy(update={"space": str(space)})
    return replace(
        identity(spec), space_sha256=SPACE.sha256(), spec_json=spec.model_dump(mode="json")
    )


@pytest.fixture
def folder(tmp_path: Path, study: StudyIdentity) -> Path:
    log = MeasurementLog(tmp_path / "old.db.measured" / "s.jsonl", reserve_bytes=1)
    log.open()
    log.append(LoggedStudy(study, DEFAULTS))
    crash = Failure(FailureKind.CONFIGURATION, "no memory")
    for record in (
        logged(0, Configuration()),
        logged(1, point(8)),
        logged(2, point(16), infrastructure()),
        logged(4, point(16)),  # 3 was interrupted
        logged(5, point(256, 0.9), crash),
        logged(6, point(32), infrastructure()),  # and never tried again
        replace(logged(0, point(8)), repeat=RepeatOf(1, RepeatKind.CONFIRMATION)),
    ):
        log.append(record)
    with log.path.open("ab") as file:
        file.write(b'\n{"sha":"torn')
    log.close()
    return log.path.parent


def test_a_store_is_made_again(folder: Path, tmp_path: Path) -> None:
    (made,) = rebuild(folder, tmp_path / "new.db", pytest.fail)
    assert (made.study, made.trials, made.repeats, made.damaged_lines) == ("s", 6, 1, 1)
    store = Store.open(tmp_path / "new.db", create=False)
    rows = {t.number: t for t in store.trials("s")}
    assert list(rows) == [0, 1, 2, 4, 5, 6]
    assert rows[0].baseline and not rows[1].baseline
    assert rows[1] == replace(
        rows[1],
        configuration=point(8),
        measurement=physics(point(8), 1),
        warnings=("warm",),
        owner=OWNER,
        started_at=logged(1, point(8)).started_at,
    )
    assert store.study("s").spent_s == 70.0
    (repeat,) = store.repeats.of("s")
    assert (repeat.trial, repeat.kind) == (1, RepeatKind.CONFIRMATION)

    told = optuna.load_study(study_name="s", storage=store.optuna_storage()).trials
    states = [t.state for t in told]
    done, fail = TrialState.COMPLETE, TrialState.FAIL
    assert states == [done, done, fail, fail, done, done, fail, TrialState.WAITING]
    assert told[4].user_attrs["attempt"] == 2 and told[7].user_attrs["attempt"] == 2
    assert told[5].constraints["launch_ok"] > 0
    assert told[7].system_attrs["fixed_params"]["log2_max_num_seqs"] == 5
    assert told[0].user_attrs["baseline"] is True
    assert told[1].params == parameters_of(SPACE, point(8), {})

    problems = [f for f in check_studies(store, tmp_path) if f.is_problem]
    assert problems == []  # and its own log has what the old one had
    assert check_file(tmp_path / "new.db") == []
    store.close()
    logs = tmp_path / "new.db.measured"
    assert {stat.S_IMODE(one.stat().st_mode) for one in logs.iterdir()} == {0o600}
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    with pytest.raises(UsageError, match="exists already"):
        rebuild(folder, tmp_path / "new.db", pytest.fail)


def test_a_machine_that_was_only_busy_takes_no_attempt(
    study: StudyIdentity, tmp_path: Path
) -> None:
    log = MeasurementLog(tmp_path / "old.db.measured" / "s.jsonl", reserve_bytes=1)
    log.open()
    log.append(LoggedStudy(study, DEFAULTS))
    busy = Failure(FailureKind.BUSY, "the client was late")
    for number, result in enumerate([None, infrastructure(), *[busy] * 5]):
        log.append(logged(number, point(16) if number else Configuration(), result))
    log.close()
    rebuild(log.path.parent, tmp_path / "new.db", pytest.fail)
    with Store.open(tmp_path / "new.db", create=False) as store:
        assert store.trials("s")[6].failure == busy
        told = optuna.load_study(study_name="s", storage=store.optuna_storage()).trials
    assert told[7].state is TrialState.WAITING and told[7].user_attrs["attempt"] == 2


def test_what_contradicts_itself_is_found(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    rebuild(folder, path, pytest.fail)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("DELETE FROM tuner_trials WHERE number = 1")
        other.execute("UPDATE tuner_trials SET metrics = '{\"x\": 1.0}' WHERE number = 4")
        other.execute("UPDATE trials SET state = 'FAIL' WHERE number = 0")
        other.execute("UPDATE tuner_trials SET state = 'running', metrics = NULL WHERE number = 6")
        other.execute("INSERT INTO tuner_raw_runs VALUES (12345, x'00')")
    found = {f.message.split(";")[0] for f in check_file(path) if f.is_problem}
    with Store.open(path, create=False) as store:
        found |= {f.message.split(";")[0] for f in check_studies(store, tmp_path) if f.is_problem}
    assert found == {
        "row 12345 of tuner_raw_runs belongs to nothing in tuner_trials",
        "trial 1 is COMPLETE in Optuna and has no result",
        "trial 1 is in the measurement log and not in the store",
        "trial 4 has other metrics in the measurement log",
        "trial 0 is measured and FAIL in Optuna",
        "trial 6 was measured and did not reach the store",
    }


def test_a_log_without_a_study_and_an_empty_folder_are_said(folder: Path, tmp_path: Path) -> None:
    (folder / "odd.jsonl").write_text("\nnothing\n")
    notes: list[str] = []
    assert len(rebuild(folder, tmp_path / "new.db", notes.append)) == 1
    assert "names no study" in notes[0]
    with pytest.raises(UsageError, match="no measurement log"):
        rebuild(tmp_path / "none", tmp_path / "other.db", pytest.fail)


def test_a_space_that_was_edited_is_not_mixed_in(
    folder: Path, tmp_path: Path, study: StudyIdentity
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(path.read_text().replace("high: 256", "high: 128"))
    with pytest.raises(OperatorNeededError, match="no longer what study 's' was measured with"):
        rebuild(folder, tmp_path / "new.db", pytest.fail)


# --- the points of an older study -------------------------------------------------------------


def test_the_front_comes_first_then_the_rest_within_reason(folder: Path, tmp_path: Path) -> None:
    rebuild(folder, tmp_path / "new.db", pytest.fail)
    with Store.open(tmp_path / "new.db", create=False) as store:
        trials = store.trials("s")
    front = front_of(trials, SPEC.slos, SPEC.objectives)
    points = points_to_start_with(trials, SPEC.slos, SPEC.objectives, 100)
    assert points == [t.configuration for t in front if not t.baseline]
    assert points_to_start_with(trials, SPEC.slos, SPEC.objectives, 2) == points[:1]


def test_a_point_outside_the_space_is_none() -> None:
    assert parameters_of(SPACE, point(8), {}) is not None
    assert parameters_of(SPACE, point(1024), {}) is None
    assert parameters_of(SPACE, Configuration(flags={"other": 1}), {}) is None
    assert parameters_of(SPACE, Configuration(flags={"max_num_seqs": "many"}), {}) is None
    partly = parameters_of(SPACE, Configuration(flags={"max_num_seqs": 8}), {})
    assert partly == {"log2_max_num_seqs": 3, "gpu_memory_utilization": 0.9}


def test_options_go_before_what_the_older_study_asked_for(study: StudyIdentity) -> None:
    old = replace(study, spec_json={**study.spec_json, "request_rate": 4.0, "emulate": "L4"})
    like = asked_like(old, {"model": None, "hours": 2.0, "concurrency": 8})
    assert like["model"] == "m" and like["emulate"] == "L4" and like["slo"] == ["p99_tpot_ms<=40"]
    assert like["hours"] == 2.0 and like["concurrency"] == 8
    assert not {"trials", "request_rate", "study"} & set(like)
    assert like["seed"] == 1  # with the same one the same points would be proposed
