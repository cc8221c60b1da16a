"""Repeats beside trials, and stores of an older tuner."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.configuration import Configuration
from tuner.records import Failure, FailureKind, Load, Measurement, Source, Timing
from tuner.store import ProbeKind, RepeatKind, Store, TrialOwner

MEASUREMENT = Measurement({"p99_tpot_ms": 41.5}, 10.0, 70.0, Source.EMULATED, Source.MEASURED)
AGAIN = replace(MEASUREMENT, metrics={"p99_tpot_ms": 43.0})


@pytest.fixture
def measured(store: Store, owner: TrialOwner) -> Store:
    store.begin_trial("night", 3, Configuration(), baseline=True, owner=owner)
    store.save_measurement("night", 3, MEASUREMENT, None, timing=Timing(90.0, 30.0))
    return store


def test_a_repeat_is_a_row_of_its_own_and_the_trial_stays(
    measured: Store, owner: TrialOwner
) -> None:
    repeats = measured.repeats
    number = repeats.begin("night", 3, RepeatKind.CONFIRMATION, owner)
    answers = ((5, 6, 7), ())
    repeats.save(
        "night", number, AGAIN, None, timing=Timing(80.0, None), warnings=["hot"], answers=answers
    )
    (row,) = repeats.of("night")
    assert (row.number, row.trial, row.kind) == (0, 3, RepeatKind.CONFIRMATION)
    assert (row.measurement, row.timing, row.warnings) == (AGAIN, Timing(80.0, None), ("hot",))
    assert (row.answers, row.owner) == (answers, owner)
    (trial,) = measured.trials("night")
    assert (trial.measurement, trial.timing) == (MEASUREMENT, Timing(90.0, 30.0))
    assert repeats.begin("night", 3, RepeatKind.BASELINE, owner) == 1
    (summary,) = measured.studies()
    assert summary.confirmations == 1


def test_a_probe_is_kept_with_its_load_and_is_no_repeat(measured: Store, owner: TrialOwner) -> None:
    repeats, load = measured.repeats, Load(request_rate=6.125)
    repeats.begin("night", 3, RepeatKind.BASELINE, owner, 0)
    number = repeats.begin("night", 3, ProbeKind.HEADROOM, owner, 4, load)
    repeats.save("night", number, AGAIN, None, timing=Timing(80.0, None))
    (probe,) = repeats.probes("night")
    assert (probe.number, probe.kind, probe.traffic, probe.load) == (1, "headroom", 4, load)
    assert [r.number for r in repeats.of("night")] == [0]
    assert [r.number for r in repeats.every("night")] == [0, 1]
    assert measured.studies()[0].confirmations == 0


def test_a_repeat_ends_once(measured: Store, owner: TrialOwner) -> None:
    number = measured.repeats.begin("night", 3, RepeatKind.BASELINE, owner)
    failure = Failure(FailureKind.INFRASTRUCTURE, "memory held", Path("/x.log"))
    took = Timing(1.0, None)
    measured.repeats.save("night", number, failure, None, timing=took, spent_s=1.0)
    (row,) = measured.repeats.of("night")
    assert row.failure == failure and row.measurement is None
    with pytest.raises(ValueError, match="does not run"):
        measured.repeats.save("night", number, AGAIN, None, timing=took, spent_s=1.0)
    assert measured.study("night").spent_s == 1.0
    with pytest.raises(ValueError, match="no trial 4"):
        measured.repeats.begin("night", 4, RepeatKind.BASELINE, owner)


def test_what_is_not_finite_is_refused_and_the_repeat_still_runs(
    measured: Store, owner: TrialOwner
) -> None:
    number = measured.repeats.begin("night", 3, RepeatKind.BASELINE, owner)
    bad = replace(AGAIN, metrics={"p99_tpot_ms": float("nan")})
    with pytest.raises(ValueError, match="p99_tpot_ms is nan"):
        measured.repeats.save("night", number, bad, None, timing=Timing(1.0, None))
    assert measured.repeats.drop_running("night") == [3]
    assert measured.repeats.of("night") == []


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(("budget_trials", "finished"), [(1, True), (2, False)])
def test_a_store_of_version_1_is_brought_up_and_keeps_what_it_holds(
    measured: Store, path: Path, owner: TrialOwner, create: bool, budget_trials: int, finished: bool
) -> None:
    measured.set_budget("night", trials=budget_trials, hours=None)
    trial = measured.trials("night")
    measured.close()
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("DROP TABLE tuner_repeat_raw_runs")
        old.execute("DROP TABLE tuner_repeats")
        old.execute("ALTER TABLE tuner_studies DROP COLUMN finished_at")
        for column in ("elapsed_s", "launch_s"):
            old.execute(f"ALTER TABLE tuner_trials DROP COLUMN {column}")
        old.execute("UPDATE tuner_schema SET version = 1")
    store = Store.open(path, create=create)
    assert store.trials("night") == [replace(trial[0], timing=None)]
    assert store.studies()[0].is_finished is finished
    assert store.repeats.begin("night", 3, RepeatKind.BASELINE, owner) == 0
    assert Store.open(path, create=False).repeats.of("night")[0].trial == 3
