from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import optuna
import pytest
from helpers.records import study_identity
from helpers.stored_runs import CONFIGURATION, MEASUREMENT, small_run
from helpers.subprocesses import environment_with_helpers
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from tuner.configuration import DEVICE_KNOBS, LOAD_KNOBS, Configuration
from tuner.errors import OperatorNeededError, PreflightError, UsageError
from tuner.host.plain_text import plain_text
from tuner.metrics import METRICS
from tuner.records import (
    Failure,
    FailureKind,
    Measurement,
    Source,
)
from tuner.store import Store, StudyIdentity, TrialOwner, TrialState

finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=20).map(plain_text)
values = st.booleans() | st.integers(-(2**53), 2**53) | finite | words
names = st.from_regex(r"[a-z][a-z0-9_]{0,9}(\.[a-z]{1,3})?", fullmatch=True)
variables = st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True)
configurations = st.builds(
    Configuration,
    st.dictionaries(names, values, max_size=4),
    st.dictionaries(variables, values, max_size=4),
    st.dictionaries(st.sampled_from(DEVICE_KNOBS), values),
    st.dictionaries(st.sampled_from(LOAD_KNOBS), values),
)
measurements = st.builds(
    Measurement,
    metrics=st.dictionaries(st.sampled_from(sorted(METRICS)), finite),
    window_start_s=finite,
    window_end_s=finite,
    latency_source=st.sampled_from(Source),
    energy_source=st.sampled_from(Source),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("shared") / "tuner.db", create=True)


@pytest.fixture(scope="module")
def fresh_number() -> Iterator[int]:
    return iter(range(1_000_000))


def begun(store: Store, owner: TrialOwner, number: int = 0) -> None:
    store.begin_trial("night", number, CONFIGURATION, baseline=number == 0, owner=owner)


# --- round trips ------------------------------------------------------------------------------


def test_the_identity_of_a_study_comes_back(store: Store, identity: StudyIdentity) -> None:
    assert store.study("night") == identity
    assert store.study("night").created_at.tzinfo is UTC


def test_a_time_in_another_zone_is_kept_as_the_same_instant(
    store: Store, identity: StudyIdentity
) -> None:
    there = identity.created_at.astimezone(timezone(timedelta(hours=9)))
    store.create_study(replace(identity, name="tokyo", created_at=there))
    assert store.study("tokyo").created_at == identity.created_at


@settings(max_examples=40, deadline=None)
@given(configuration=configurations, measurement=measurements, warnings=st.lists(words))
def test_read_of_write_is_the_same(
    shared: Store,
    fresh_number: Iterator[int],
    configuration: Configuration,
    measurement: Measurement,
    warnings: list[str],
) -> None:
    name = f"study-{next(fresh_number)}"
    owner = TrialOwner(1, "boot", "host", "tag")
    shared.create_study(replace(study_identity(), name=name))
    shared.begin_trial(name, 0, configuration, baseline=True, owner=owner)
    shared.save_measurement(name, 0, measurement, None, warnings=warnings)
    (row,) = shared.trials(name)
    assert row.configuration == configuration
    assert repr(row.configuration.to_json()) == repr(configuration.to_json())  # 1, 1.0 and True
    assert row.measurement == measurement
    assert row.warnings == tuple(w.replace("\0", "\ufffd") for w in warnings)
    assert row.state is TrialState.MEASURED
    assert row.owner == owner


def test_a_metric_that_is_absent_stays_absent(store: Store, owner: TrialOwner) -> None:
    begun(store, owner)
    store.save_measurement("night", 0, replace(MEASUREMENT, metrics={"p99_tpot_ms": 3.0}), None)
    measurement = store.trials("night")[0].measurement
    assert measurement is not None
    assert set(measurement.metrics) == {"p99_tpot_ms"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_refused_and_nothing_written(
    store: Store, owner: TrialOwner, bad: float
) -> None:
    begun(store, owner)
    with pytest.raises(ValueError, match="leave it out"):
        store.save_measurement("night", 0, replace(MEASUREMENT, metrics={"p99_tpot_ms": bad}), None)
    assert store.trials("night")[0].state is TrialState.RUNNING


def test_raw_records_come_back_and_are_none_where_there_are_none(
    store: Store, owner: TrialOwner
) -> None:
    begun(store, owner, 0)
    begun(store, owner, 1)
    store.save_measurement("night", 0, MEASUREMENT, small_run())
    store.save_failure("night", 1, Failure(FailureKind.UNSTABLE, "drifting"))
    found = store.raw_run("night", 0)
    assert found is not None
    assert found.requests[0].error == "reset by peer"
    assert found.requests[0].token_times_s.tolist() == [0.7, 0.8]
    assert found.power.energy_j.tolist() == [0.0, 305.0]
    assert store.raw_run("night", 1) is None
    assert store.raw_run("night", 77) is None


def test_a_failure_keeps_its_reason_log_and_raw_records(store: Store, owner: TrialOwner) -> None:
    begun(store, owner)
    failure = Failure(FailureKind.CONFIGURATION, "out of memory", Path("/var/log/vllm.log"))
    store.save_failure("night", 0, failure, small_run())
    (row,) = store.trials("night")
    assert (row.state, row.failure, row.measurement) == (TrialState.FAILED, failure, None)
    assert row.ended_at is not None
    assert row.ended_at >= row.started_at
    assert store.raw_run("night", 0) is not None


def test_a_reason_with_bytes_no_database_takes_is_still_kept(
    store: Store, owner: TrialOwner
) -> None:
    begun(store, owner)
    reason = b"died: \xff\x00 end".decode("utf-8", "surrogateescape")
    store.save_failure("night", 0, Failure(FailureKind.INFRASTRUCTURE, reason))
    failure = store.trials("night")[0].failure
    assert failure is not None
    assert failure.reason == "died: \ufffd\ufffd end"


# --- the rules of a trial's life --------------------------------------------------------------


def test_beginning_again_keeps_the_trial_and_takes_it_over(store: Store, owner: TrialOwner) -> None:
    begun(store, owner)
    before = store.trials("night")[0]
    begun(store, replace(owner, pid=9))
    (after,) = store.trials("night")
    assert after == replace(before, owner=replace(owner, pid=9))


def test_beginning_an_ended_trial_again_changes_nothing(store: Store, owner: TrialOwner) -> None:
    begun(store, owner)
    store.save_measurement("night", 0, MEASUREMENT, None)
    before = store.trials("night")
    begun(store, replace(owner, pid=9))
    assert store.trials("night") == before


def test_one_number_cannot_become_another_configuration(store: Store, owner: TrialOwner) -> None:
    begun(store, owner)
    with pytest.raises(OperatorNeededError, match="another configuration"):
        store.begin_trial("night", 0, Configuration(), baseline=True, owner=owner)


def test_a_measured_trial_cannot_be_made_a_failure(store: Store, owner: TrialOwner) -> None:
    begun(store, owner)
    store.save_measurement("night", 0, MEASUREMENT, None)
    with pytest.raises(ValueError, match="was measured"):
        store.save_failure("night", 0, Failure(FailureKind.INFRASTRUCTURE, "late"))
    assert store.trials("night")[0].state is TrialState.MEASURED


def test_saving_again_gives_the_same_row(store: Store, owner: TrialOwner) -> None:
    begun(store, owner)
    for _ in range(2):
        store.save_measurement("night", 0, MEASUREMENT, small_run(), spent_s=60.0)
    assert store.study("night").spent_s == 60.0
    assert [t.measurement for t in store.trials("night")] == [MEASUREMENT]
    assert store.raw_run("night", 0) is not None


def test_saving_a_trial_that_was_not_begun_is_a_bug(store: Store) -> None:
    with pytest.raises(ValueError, match="not begun"):
        store.save_measurement("night", 3, MEASUREMENT, None)


def test_if_the_raw_records_cannot_be_written_neither_is_the_measurement(
    store: Store, owner: TrialOwner, path: Path
) -> None:
    begun(store, owner)
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON tuner_raw_runs "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    with pytest.raises(Exception, match="refused"):
        store.save_measurement("night", 0, MEASUREMENT, small_run(), spent_s=60.0)
    assert store.trials("night")[0].state is TrialState.RUNNING
    assert store.study("night").spent_s == 0.0


# --- studies, events, budget ------------------------------------------------------------------


def test_a_taken_name_says_how_to_go_on(store: Store, identity: StudyIdentity) -> None:
    with pytest.raises(UsageError, match=r"tuner resume night.*--study"):
        store.create_study(identity)


def test_an_unknown_study_names_the_nearest(store: Store) -> None:
    with pytest.raises(UsageError, match="did you mean 'night'"):
        store.trials("nigth")


def test_an_unknown_study_in_an_empty_store_says_that_it_is_empty(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds none yet"):
        Store.open(tmp_path / "t.db", create=True).study("night")


def test_summaries_count_trials_by_state(
    store: Store, identity: StudyIdentity, owner: TrialOwner
) -> None:
    later = replace(identity, name="later", created_at=identity.created_at + timedelta(days=1))
    store.create_study(later)
    for number in range(4):
        begun(store, owner, number)
    store.save_measurement("night", 0, MEASUREMENT, None)
    store.save_measurement("night", 1, MEASUREMENT, None)
    store.save_failure("night", 2, Failure(FailureKind.CONFIGURATION, "oom"))
    first, second = store.studies()
    assert (first.identity, first.measured, first.failed, first.running) == (identity, 2, 1, 1)
    assert (second.identity.name, second.measured, second.running) == ("later", 0, 0)
    assert not first.is_finished


def test_a_study_is_finished_when_that_is_noted(store: Store) -> None:
    store.set_budget("night", trials=None, hours=1.0)
    store.add_spent_s("night", 3600.0)
    assert not store.studies()[0].is_finished  # its confirmation may be open
    store.set_finished("night", datetime.now(UTC))
    assert store.studies()[0].is_finished
    identity = store.study("night")
    assert (identity.budget_trials, identity.budget_s, identity.spent_s) == (None, 3600.0, 3600.0)


def test_events_come_back_in_order_with_aware_times(store: Store) -> None:
    store.add_event("night", "launch", "server up", trial=0)
    store.add_event("night", "fault", "killed")
    first, second = store.events("night")
    assert (first.kind, first.message, first.trial) == ("launch", "server up", 0)
    assert (second.kind, second.trial) == ("fault", None)
    assert first.at.tzinfo is UTC
    assert datetime.now(UTC) - first.at < timedelta(minutes=1)


# --- beside Optuna ----------------------------------------------------------------------------


def optuna_round(store: Store) -> None:
    study = optuna.create_study(
        storage=store.optuna_storage(), study_name="o", directions=["minimize"]
    )
    trial = study.ask()
    trial.suggest_int("x", 0, 9)
    trial.set_constraint("launch_ok", -1.0)
    study.tell(trial, 1.0)
    assert study.best_value == 1.0


def test_optuna_after_ours(store: Store, owner: TrialOwner) -> None:
    begun(store, owner)
    optuna_round(store)
    assert len(store.trials("night")) == 1


def test_ours_after_optuna(path: Path, identity: StudyIdentity) -> None:
    path.parent.mkdir()
    optuna.storages.RDBStorage(f"sqlite:///{path}")
    with pytest.raises(UsageError, match="no store at"):
        Store.open(path, create=False)
    store = Store.open(path, create=True)
    store.create_study(identity)
    optuna_round(store)
    assert Store.open(path, create=False).study("night") == identity


def test_optunas_connections_are_as_durable_as_ours(store: Store) -> None:
    for engine in (store.optuna_storage().engine, store._engine):
        with engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert pragmas == {
            "journal_mode": "delete",
            "synchronous": 3,
            "foreign_keys": 1,
            "busy_timeout": 120_000,
        }


# --- what can be wrong with the file ----------------------------------------------------------


def test_a_missing_store_is_not_created_for_reading(path: Path) -> None:
    with pytest.raises(UsageError, match=r"no store at .*tuner run.*--store"):
        Store.open(path, create=False)
    assert not path.parent.exists()


def test_an_empty_file_is_no_store_for_reading_but_can_become_one(tmp_path: Path) -> None:
    (tmp_path / "t.db").touch()
    with pytest.raises(UsageError, match="no store at"):
        Store.open(tmp_path / "t.db", create=False)
    assert Store.open(tmp_path / "t.db", create=True).studies() == []


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="is a folder"):
        Store.open(tmp_path, create=True)


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(PreflightError, match="--store"):
        Store.open(tmp_path / "f" / "t.db", create=True)


@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path, create: bool) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are my notes, not a database")
    with pytest.raises(PreflightError, match="not a SQLite database and was left untouched"):
        Store.open(file, create=create)
    assert file.read_text() == "these are my notes, not a database"


@pytest.mark.parametrize("create", [True, False])
def test_a_corrupt_database_is_refused_and_untouched(
    store: Store, path: Path, owner: TrialOwner, create: bool
) -> None:
    for number in range(12):
        begun(store, owner, number)
        store.save_measurement("night", number, MEASUREMENT, None)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 8] = b"\xa5" * (4096 * 6)
    path.write_bytes(content)
    ways_out = r"left untouched; .*tuner store rebuild NEW\.db --store .*, restore a backup"
    with pytest.raises(OperatorNeededError, match=rf"corrupt .* {ways_out}"):
        Store.open(path, create=create)
    assert path.read_bytes() == content


def test_a_newer_schema_is_refused(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE tuner_schema SET version = 99")
    with pytest.raises(PreflightError, match=r"schema 99.*upgrade"):
        Store.open(path, create=True)


def test_a_locked_store_is_said_to_be_locked_for_us_and_for_optuna(
    store: Store, path: Path, owner: TrialOwner
) -> None:
    impatient = Store.open(path, create=False, busy_timeout_s=0.1)
    study = optuna.create_study(storage=impatient.optuna_storage(), directions=["minimize"])
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperatorNeededError, match="locked by another process"):
            begun(impatient, owner)
        with (
            pytest.raises(OperatorNeededError, match="locked by another process"),
            impatient.optuna_faults(),
        ):
            study.set_user_attr("k", 1)
    begun(impatient, owner)
    assert len(store.trials("night")) == 1


def test_a_full_disk_is_said_and_loses_nothing(store: Store, owner: TrialOwner) -> None:
    begun(store, owner)
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    limit = f"PRAGMA max_page_count={pages}"
    event.listen(store._engine, "connect", lambda raw, _: raw.execute(limit).close())
    with pytest.raises(OperatorNeededError, match="no space is left"):
        for _ in range(1000):
            store.add_event("night", "noise", "x" * 10_000)
    assert store.trials("night")[0].state is TrialState.RUNNING
    assert Store.open(store.url, create=False).studies()[0].running == 1


@pytest.mark.parametrize("address", ["mysql://u@h/db", "sqlite://", "sqlite:///:memory:", "://"])
def test_an_address_that_is_no_store_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no store"):
        Store.open(address, create=True)


def test_a_server_that_is_not_there_is_said_to_be_unreachable_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(PreflightError, match="cannot reach the database") as caught:
        Store.open("postgresql://me:hunter2@127.0.0.1:1/tuner", create=True)
    assert "hunter2" not in str(caught.value)


def as_nobody(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python without the right to write everywhere, whoever runs the tests."""
    become = f"import os; os.geteuid() == 0 and (os.setgid(65534), os.setuid(65534)); {code}"
    preload = "import sys, tuner.store.store; from tuner.errors import *;"
    return subprocess.run(
        [sys.executable, "-c", preload + become, *arguments], capture_output=True, text=True
    )


OPEN = (
    "from tuner.store import Store\ntry: print(len(Store.open(sys.argv[1], create=sys.argv[2]"
    "=='1').studies()))\nexcept TunerError as e: print(type(e).__name__, e)"
)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can read; another pytest takes that right from `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_a_store_in_a_folder_that_may_not_be_entered_is_one_sentence(open_folder: Path) -> None:
    path = open_folder / "tuner.db"
    Store.open(path, create=True).close()
    open_folder.chmod(0o700)
    for create in "01":
        opened = as_nobody(OPEN, str(path), create)
        assert f"PreflightError cannot use the store '{path}'" in opened.stdout, opened.stderr


def test_without_the_right_to_write_a_store_can_be_read_but_not_run_on(open_folder: Path) -> None:
    path = open_folder / "tuner.db"
    store = Store.open(path, create=True)
    store.create_study(study_identity())
    store.close()
    path.chmod(0o444)
    open_folder.chmod(0o555)
    read = as_nobody(OPEN, str(path), "0")
    assert read.stdout.strip() == "1", read.stderr
    run = as_nobody(OPEN, str(path), "1")
    assert "PreflightError" in run.stdout, run.stderr
    assert "not writable" in run.stdout


# --- kill -9 ----------------------------------------------------------------------------------

WRITE_ON = """
import sys
from helpers.stored_runs import CONFIGURATION, MEASUREMENT, WRITER, small_run
from tuner.store import Store
store = Store.open(sys.argv[1], create=False)
for number in range(10_000):
    store.begin_trial("night", number, CONFIGURATION, baseline=False, owner=WRITER)
    store.save_measurement("night", number, MEASUREMENT, small_run())
    print(number, flush=True)
"""


@pytest.mark.parametrize("kill_after", [0, 3, 11])
def test_kill_9_of_a_writer_loses_nothing_it_had_saved(
    store: Store, path: Path, kill_after: int
) -> None:
    command = [sys.executable, "-c", WRITE_ON, str(path)]
    environment = environment_with_helpers()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        for _ in range(kill_after + 1):
            said = int(writer.stdout.readline())
        time.sleep(random.Random(kill_after).uniform(0.0, 0.02))  # anywhere in a transaction
        writer.kill()
        rest = writer.stdout.read().splitlines()
    said = int(rest[-1]) if rest else said
    reopened = Store.open(path, create=False)
    trials = reopened.trials("night")
    measured = [t for t in trials if t.state is TrialState.MEASURED]
    assert [t.number for t in trials] == list(range(len(trials)))
    assert len(measured) in (said + 1, said + 2)  # saved, but killed before it could say so
    assert len(trials) - len(measured) <= 1
    assert all(reopened.raw_run("night", t.number) is not None for t in measured)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    reopened.add_event("night", "resumed", "writing goes on")
