from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from helpers.records import IDENTITY, OWNER
from helpers.stored_study import add_night, configuration
from helpers.studies import InProcess

from tuner.records import Failure, FailureKind, Load, LoadSnapshot, Source
from tuner.report.terminal.status_table import duration, status
from tuner.store import ProbeKind, Store, study_lock
from tuner.store.log.now_file import NowFile


@pytest.fixture
def tuner(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


@pytest.fixture
def store(tuner: InProcess) -> Store:
    store = Store.open(tuner.store_path, create=True)
    add_night(store, replace(IDENTITY, finished_at=None, budget_trials=20))
    store.begin_trial("night", 7, configuration(64, 300), baseline=False, owner=OWNER)
    return store


def test_a_running_study_is_seen_from_another_terminal(store: Store, tuner: InProcess) -> None:
    with study_lock(store.url, "night"):
        shown = tuner("status")
        told = json.loads(tuner("status", "night", "--format", "json").stdout)
    assert shown.returncode == 0
    assert "running, process" in shown.stdout
    assert "7 of 20 trials" in shown.stdout
    assert "trial 7 for" in shown.stdout
    assert "max_num_seqs=64" in shown.stdout
    assert "CUDA out of memory" in shown.stdout
    assert told["alive"]
    assert told["running"]["trial"] == 7
    assert [t["number"] for t in told["front"]["front"]] == [2, 1, 0]


def test_how_the_load_goes_is_seen_too(store: Store, tuner: InProcess) -> None:
    file = NowFile(store.url, "night")
    with study_lock(store.url, "night"):
        before = tuner("status").stdout
        file.write(LoadSnapshot(412.0, 1395.0, 35.2, 9.8, Source.EMULATED, Source.MEASURED))
        shown = tuner("status").stdout
        told = json.loads(tuner("status", "night", "--format", "json").stdout)
    line = "412 W  1395 MHz (emulated)  latest answers: TTFT 35.2 ms, TPOT 9.8 ms"
    assert line in " ".join(shown.split("\n"))
    assert line not in before
    assert told["running"]["load"]["tpot_ms"] == 9.8
    assert told["running"]["load"]["power_source"] == "emulated"
    assert line not in tuner("status").stdout  # nobody runs it


def test_a_study_that_nobody_runs_says_how_to_go_on(store: Store, tuner: InProcess) -> None:
    shown = tuner("status", "night")
    assert "not running, and not finished; `tuner resume night`" in shown.stdout
    assert "trial 7 for" not in shown.stdout  # a dead tuner left it
    told = json.loads(tuner("status", "night", "--format", "json").stdout)
    assert not told["alive"]
    assert told["running"] is None
    assert told["left_s"] is None


def test_a_clock_that_was_set_back_makes_no_time_negative(store: Store) -> None:
    row = store.trials("night")[-1]
    with study_lock(store.url, "night"):
        found = status(store, "night", row.started_at - timedelta(hours=1))
    assert found.running is not None and found.running.for_s == 0.0
    assert found.running.typical_s is not None and found.running.typical_s > 0.0
    assert found.left_s is not None and found.left_s > 0.0


def test_the_time_left_is_that_of_the_nearer_end(store: Store) -> None:
    row = store.trials("night")[-1]
    now = row.started_at + timedelta(seconds=90)
    with study_lock(store.url, "night"):
        found = status(store, "night", now)
        store.set_budget("night", trials=20, hours=1.5 + 1 / 3600)  # 1.5 h of it are spent
        by_hours = status(store, "night", now)
    assert found.running is not None
    assert found.running.for_s == pytest.approx(90.0)
    assert found.running.typical_s is not None
    assert found.left_s == pytest.approx(13 * found.running.typical_s)
    assert by_hours.left_s == pytest.approx(min(1.0, found.left_s))


def test_a_final_check_runs_too(store: Store, tuner: InProcess) -> None:
    store.save_failure("night", 7, Failure(FailureKind.CONFIGURATION, "x"))
    store.repeats.begin("night", 2, ProbeKind.STRESS, OWNER, None, Load(concurrency=64))
    with study_lock(store.url, "night"):
        shown = tuner("status").stdout
        told = json.loads(tuner("status", "--format", "json").stdout)["running"]
    assert "stress of trial 2 for" in shown
    assert (told["trial"], told["is_repeat"], told["what"]) == (2, True, "stress of trial 2")


def test_cards_share_the_trials_that_are_left_and_hours_hold_the_confirmation(
    store: Store, tuner: InProcess
) -> None:
    for number, card in ((7, "a"), (8, "b"), (9, "c")):
        owner = replace(OWNER, card=card)
        store.begin_trial("night", number, configuration(64, 300), baseline=False, owner=owner)
    now = store.trials("night")[-1].started_at
    with study_lock(store.url, "night"):
        alone, shown = status(store, "night", now), tuner("status").stdout
        store.set_budget("night", trials=None, hours=9.0)
        by_hours = tuner("status").stdout
    cards = len(alone.workers)
    assert cards >= 2 and alone.left_s is not None
    typical_s = 13.0  # trials
    assert alone.left_s * cards == pytest.approx(typical_s * _typical_s(store))
    assert "then the confirmation" in shown
    assert "confirmation included" in by_hours


def _typical_s(store: Store) -> float:
    ended = [t for t in store.trials("night") if t.ended_at is not None]
    return sum((t.ended_at - t.started_at).total_seconds() for t in ended) / len(ended)  # type: ignore[operator]


def test_without_a_study_it_says_what_to_do(tuner: InProcess) -> None:
    Store.open(tuner.store_path, create=True).close()
    told = tuner("status")
    assert told.returncode == 2
    assert "tuner run" in told.stderr


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.0, "59 s"), (720.0, "12 min"), (12000.0, "3 h 20 min")]
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_launch_says_where_its_log_is_and_what_it_does(store: Store, tuner: InProcess) -> None:
    logs = tuner.folder / "results" / "logs" / "night"
    logs.mkdir(parents=True)
    (logs / "older.log").write_text("of another launch\n")
    os.utime(logs / "older.log", (1.0, 1.0))
    (logs / "trial-7.log").write_text("Loading weights\ntoken=hf_abcdefghijklmnop1\n")
    with study_lock(store.url, "night"):
        shown = " ".join(tuner("status").stdout.split())
        told = json.loads(tuner("status", "--format", "json").stdout)
    assert "no load yet; log" in shown and "trial-7.log" in shown and "hf_abc" not in shown
    assert told["running"]["launch"].endswith("***")


def test_no_count_is_above_its_budget(store: Store, tuner: InProcess) -> None:
    for number in range(8, 26):
        store.begin_trial("night", number, configuration(64, 300), baseline=False, owner=OWNER)
        kind = FailureKind.INFRASTRUCTURE if number < 12 else FailureKind.CONFIGURATION
        store.save_failure("night", number, Failure(kind, "x"))
    for words in (("status",), ("show",)):
        text = " ".join(tuner(*words).stdout.split())
        assert "20 of 20 trials and 1 after the search, 4 attempts spoiled by the machine" in text
