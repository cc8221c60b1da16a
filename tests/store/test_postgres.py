"""The store on a real PostgreSQL server, started here for the length of this module."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import numpy as np
import optuna
import pytest
from helpers.older_stores import differences, take_back
from helpers.postgres_server import postgres_server
from sqlalchemy import text

from tuner.configuration import Configuration
from tuner.errors import PreflightError, UsageError
from tuner.records import (
    Failure,
    FailureKind,
    Measurement,
    PowerTimeline,
    RawRun,
    ServerTimeline,
    Source,
)
from tuner.store import Store, StudyIdentity, TrialOwner, TrialState, study_lock
from tuner.store.schema import SCHEMA_VERSION

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def store(server: str, identity: StudyIdentity) -> Iterator[Store]:
    opened = Store.open(server, create=True)
    with opened._engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE tuner_studies CASCADE")
    opened.create_study(identity)
    yield opened
    opened.close()


def test_before_anything_is_created_there_is_no_store(server: str) -> None:
    # this test comes first in the module, on a fresh server
    with pytest.raises(UsageError, match="no store at"):
        Store.open(server, create=False)


def test_everything_comes_back(store: Store, identity: StudyIdentity, owner: TrialOwner) -> None:
    configuration = Configuration(
        flags={"max_num_seqs": 1, "a": 1.0, "b": True, "c": 1e300, "d": -0.0, "e": "\u2603"}
    )
    measurement = Measurement(
        {"p99_tpot_ms": 0.1 + 0.2, "mean_power_w": 5e-324},
        1.0,
        2.0,
        Source.MEASURED,
        Source.EMULATED,
    )
    times = np.array([0.1, 0.2])
    run = RawRun(
        (),
        PowerTimeline(times, times, times, Source.MEASURED),
        ServerTimeline(times, times, times),
        0.0,
        1.0,
        Source.MEASURED,
    )
    store.begin_trial("night", 0, configuration, baseline=True, owner=owner)
    store.begin_trial("night", 1, configuration, baseline=False, owner=owner)
    store.save_measurement("night", 0, measurement, run, warnings=["hot"])
    failure = Failure(FailureKind.CONFIGURATION, "log with \0 and \udcff", Path("/l"))
    store.save_failure("night", 1, failure)
    first, second = store.trials("night")
    assert repr(first.configuration.to_json()) == repr(configuration.to_json())
    assert first.measurement == measurement
    assert first.warnings == ("hot",)
    assert first.started_at.tzinfo is UTC
    assert second.state is TrialState.FAILED
    assert second.failure == replace(failure, reason="log with \ufffd and \ufffd")
    found = store.raw_run("night", 0)
    assert found is not None
    assert found.power.energy_j.tolist() == [0.1, 0.2]
    assert store.study("night") == identity


def test_optuna_works_beside_it(store: Store) -> None:
    storage = store.optuna_storage()
    study = optuna.create_study(storage=storage, directions=["minimize"])
    trial = study.ask()
    trial.suggest_int("x", 0, 9)
    study.tell(trial, 1.0)
    assert study.best_value == 1.0
    storage.remove_session()
    storage.engine.dispose()


def test_a_dropped_idle_connection_is_replaced(store: Store) -> None:
    other = Store.open(store.url, create=False)
    with other._engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    store.add_event("night", "after", "still there")
    assert [e.kind for e in store.events("night")] == ["after"]
    other.close()


def test_one_writer_per_study_and_the_holder_is_named(server: str) -> None:
    with (
        study_lock(server, "night"),
        study_lock(server, "other"),
        pytest.raises(PreflightError, match=rf"being run by process {os.getpid()} on "),
        study_lock(server, "night"),
    ):
        pass
    with study_lock(server, "night"):
        pass


def test_a_killed_holder_releases_the_study(server: str) -> None:
    code = (
        "import sys, time; from tuner.store import study_lock\n"
        "with study_lock(sys.argv[1], 'night'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, server], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(PreflightError, match=f"process {holder.pid} on "),
            study_lock(server, "night"),
        ):
            pass
        holder.kill()
        holder.wait()
    for attempt in range(100):  # the server notices a closed socket in its own time
        try:
            with study_lock(server, "night"):
                return
        except PreflightError:
            assert attempt < 99


def test_a_cut_connection_shows_no_traceback(
    store: Store, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLAlchemy's pool logged one, beside the sentence that the fault ends in."""
    cut = store._engine.raw_connection()
    process = cut.cursor().execute("SELECT pg_backend_pid()").fetchone()[0]
    with Store.open(server, create=False) as other, other._engine.connect() as killer:
        killer.execute(text("SELECT pg_terminate_backend(:process, 10000)"), {"process": process})
    cut.close()  # the pool rolls it back
    assert caplog.records == []


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_schema_becomes_the_one_of_a_new_store(
    store: Store, server: str, version: int
) -> None:
    store.set_budget("night", trials=None, hours=0.0)
    store.set_finished("night", None)
    assert differences(store._engine) == []
    take_back(store._engine, version)
    assert differences(store._engine) != []
    with Store.open(server, create=False) as newer:
        assert newer.studies()[0].is_finished is (version == 1)
        assert differences(newer._engine) == []
