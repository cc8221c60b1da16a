"""One writer per study, whatever happens to the database, and no traceback."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.postgres_server import postgres_server, start, stop
from helpers.stored_runs import EMULATED_NIGHT
from helpers.studies import CommandLine
from optuna.study import StudyDirection
from sqlalchemy import create_engine, text

from tuner.errors import OperatorNeededError
from tuner.records import FailureKind
from tuner.store import Store, TrialRow, TrialState, study_lock
from tuner.store.faults import StoreAwayError

psycopg = pytest.importorskip("psycopg")
pytestmark = pytest.mark.postgres
TRIALS = 20
STUDY = (
    *("run", "--emulate", "H100-SXM", "--model", "meta-llama/Llama-3.1-8B-Instruct"),
    *("--workload", "chat", "--request-rate", "4", "--space", "power", "--no-confirm"),
    *("--slo", "p99_tpot_ms<=25", "--trials", str(TRIALS), "--study", "night"),
    *("--max-window-s", "40", "--sampler", "random"),
)


@pytest.fixture
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


def cut_every_connection(server: str) -> None:
    """End them from inside, as an administrator or a proxy does."""
    engine = create_engine(server.replace("postgresql", "postgresql+psycopg", 1))
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )
    engine.dispose()


def test_a_lock_that_was_lost_is_noticed_and_taken_again(server: str) -> None:
    Store.open(server, create=True).close()
    with study_lock(server, "night") as lock:
        lock.check()
        cut_every_connection(server)
        with pytest.raises(StoreAwayError, match="ended the connection"):
            lock.check()
        with pytest.raises(StoreAwayError):
            lock.check()  # still, until it is taken again
        lock.take_again()
        lock.check()
        stop(server)
        with pytest.raises(StoreAwayError):
            lock.take_again()
        start(server)
        lock.take_again()
        lock.check()


def test_a_lock_that_another_host_has_taken_ends_the_run(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(server, create=True).close()
    with study_lock(server, "night") as ours:
        cut_every_connection(server)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("socket.gethostname", lambda: "otherhost")
            with study_lock(server, "night") as theirs:
                with pytest.raises(OperatorNeededError, match=r"taken over by process .*otherhost"):
                    ours.take_again()
                theirs.check()


def cut_the_lock(server: str) -> None:
    """End the connection that holds a study's lock, and no other; return once it has ended."""
    engine = create_engine(server.replace("postgresql", "postgresql+psycopg", 1))
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks "
                "WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'"
            )
        )
    engine.dispose()


def test_nothing_is_committed_once_the_lock_is_lost(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock was checked before each write: one that was lost in between let it through."""
    with (
        Store.open(server, create=True) as store,
        study_lock(server, "night") as lock,
        store.written_under(lock),
    ):
        store.create_study(EMULATED_NIGHT)
        storage = store.optuna_storage()
        study = storage.create_new_study([StudyDirection.MINIMIZE], "night")
        storage.create_new_trial(study)
        with pytest.raises(StoreAwayError, match="keeps other tuners from"), store.session() as now:
            now.execute(text("UPDATE tuner_studies SET spent_s = 7"))
            cut_the_lock(server)
        with pytest.raises(StoreAwayError, match="keeps other tuners from"):
            storage.create_new_trial(study)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("socket.gethostname", lambda: "otherhost")
            with study_lock(server, "night"), pytest.raises(StoreAwayError):
                store.add_event("night", "note", "too late")
        lock.take_again()
        assert store.study("night").spent_s == 0
        assert store.events("night") == []
        assert len(storage.get_all_trials(study)) == 1
        store.add_event("night", "note", "in time")
    with Store.open(server, create=False) as store:
        store.add_event("night", "note", "no lock is asked for")
        assert len(store.events("night")) == 2


def test_who_takes_the_lock_waits_for_a_commit_under_way(server: str) -> None:
    Store.open(server, create=True).close()
    engine = create_engine(server.replace("postgresql", "postgresql+psycopg", 1))
    with study_lock(server, "night") as lock, engine.connect() as writer:
        lock._require_held(writer)  # type: ignore[attr-defined]  # as its commit does
        cut_the_lock(server)
        with ThreadPoolExecutor(1) as threads:
            taken = threads.submit(lock.take_again)
            with pytest.raises(TimeoutError):
                taken.result(0.3)
            writer.commit()
            taken.result(10)
    engine.dispose()


def slow_down(server: str) -> None:
    """Let every trial last 0.3 s: an emulated night is over in two, before it can be disturbed."""
    Store.open(server, create=True).close()
    with psycopg.connect(server) as connection:
        connection.execute(
            "CREATE FUNCTION lasts() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER lasts BEFORE UPDATE OF state ON tuner_trials "
            "FOR EACH ROW EXECUTE FUNCTION lasts()"
        )


def ended(server: str) -> int:
    """How many trials have ended; 0 where that cannot be asked now."""
    query = "SELECT count(*) FROM tuner_trials WHERE state <> 'running'"
    try:
        with psycopg.connect(server) as connection:
            (count,) = connection.execute(query).fetchone() or (0,)
    except psycopg.Error:
        return 0
    return int(count)


def wait_for(server: str, trials: int, run: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + 80.0
    while ended(server) < trials:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def assert_whole(rows: list[TrialRow]) -> None:
    """Nothing is lost, doubled or left."""
    assert len({row.number for row in rows}) == len(rows)
    assert not [row for row in rows if row.state is TrialState.RUNNING]
    faults = [r for r in rows if r.failure and r.failure.kind is FailureKind.INFRASTRUCTURE]
    assert len(rows) - len(faults) == TRIALS


@pytest.fixture
def tuner(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, {"TUNER_STATE_DIR": str(tmp_path / "state")})


@pytest.mark.night
def test_a_night_goes_on_after_a_crash_of_the_server(server: str, tuner: CommandLine) -> None:
    """Breaks 4 and 7: a restart ended the night, a cut connection with a traceback."""
    slow_down(server)
    run = tuner.start(*STUDY, "--store", server)
    wait_for(server, 2, run)
    cut_every_connection(server)
    wait_for(server, 4, run)
    stop(server)
    time.sleep(4.0)
    start(server)
    _, err = run.communicate(timeout=100)
    assert run.returncode == 0, err
    assert "Traceback" not in err
    assert "the database server does not answer; waiting for it (at most 600 s)" in err
    with Store.open(server, create=False) as store:
        rows = store.trials("night")
    assert_whole(rows)


@pytest.mark.night
def test_two_hosts_never_write_one_study(
    server: str, tuner: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break 4: after a restart both wrote, and both ended in a traceback."""
    slow_down(server)
    run = tuner.start(*STUDY, "--store", server)
    wait_for(server, 2, run)
    monkeypatch.setattr("socket.gethostname", lambda: "otherhost")
    deadline_s = time.monotonic() + 60.0
    while True:  # until the other host is the first to have the lock
        cut_every_connection(server)
        try:
            with study_lock(server, "night"):
                _, err = run.communicate(timeout=60)
                break
        except OperatorNeededError:
            raise
        except Exception:  # noqa: BLE001 - the run was faster
            assert time.monotonic() < deadline_s
    assert run.returncode == 5, err
    assert "Traceback" not in err
    assert "taken over by process" in err
    monkeypatch.undo()
    done = tuner("resume", "night", "--store", server)
    assert done.returncode == 0, done.stderr
    with Store.open(server, create=False) as store:
        rows = store.trials("night")
    assert_whole(rows)
