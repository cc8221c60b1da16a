"""Racing in a study: who runs against whom, and what the store and the search are told."""

from __future__ import annotations

import asyncio

import optuna
import pytest
from helpers.scripted import Recorder, named_constraints

from tuner.analysis.outcomes import front
from tuner.evaluation.factory import fixed_configuration, measurement_plan
from tuner.load.workload import load_workload
from tuner.measurement.racing.sentence import lost_in
from tuner.records import FailureKind
from tuner.slo import Slo
from tuner.spec.device_ranges import ranges_for
from tuner.spec.search_space import load_space
from tuner.spec.study import StudySpec
from tuner.store import Store, TrialRow
from tuner.study.proposals.search_task import LAUNCH_OK
from tuner.study.racing.stored_rivals import StoredRivals
from tuner.study.run import start_study

SPEC = StudySpec(
    study="s",
    model="meta-llama/Llama-3.1-8B-Instruct",
    emulate="H100-SXM",
    space="power",
    slo=("p99_tpot_ms<=40", "p99_ttft_ms<=2000"),
    request_rate=4.0,
    trials=9,
    sampler="random",
    window_s=80.0,
    confirm=False,
    racing=True,
)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Store:
    with Store.open(tmp_path_factory.mktemp("racing") / "s.db", create=True) as store:
        asyncio.run(start_study(SPEC, store, Recorder(), yes=True))
        return store


def lost_rows(store: Store) -> list[TrialRow]:
    return [t for t in store.trials("s") if t.failure and lost_in(t.failure.reason)]


def test_who_lost_has_a_reason_and_a_record_and_is_on_no_front(studied: Store) -> None:
    lost, trials = lost_rows(studied), studied.trials("s")
    assert lost and len(trials) == SPEC.trials
    members = {t.number for t in front(studied.study("s"), trials, [])}
    for row in lost:
        assert row.failure is not None and row.failure.kind is FailureKind.CONFIGURATION
        assert row.number not in members
        raw = studied.raw_run("s", row.number)
        assert raw is not None and raw.ended_early is not None and raw.window_end_s < 120.0


def test_the_search_is_told_the_rivals_values_times_the_ratios(studied: Store) -> None:
    told = optuna.load_study(study_name="s", storage=studied.optuna_storage()).trials
    for row in lost_rows(studied):
        assert row.failure is not None
        lost = lost_in(row.failure.reason)
        assert lost is not None
        own, rival = told[row.number], told[lost.trial]
        ratios = [lost.log_ratios[o.metric] for o in SPEC.objectives]
        expected = [value + ratio for value, ratio in zip(rival.values, ratios, strict=True)]
        assert own.values == pytest.approx(expected)
        constraints = named_constraints(own)
        assert constraints[LAUNCH_OK] < 0.0
        assert constraints["p99_tpot_ms<=40"] == pytest.approx(
            named_constraints(rival)["p99_tpot_ms<=40"] + lost.log_ratios["p99_tpot_ms"]
        )


def rivals_of(spec: StudySpec, store: Store) -> StoredRivals:
    space = load_space(spec.space, lambda: ranges_for(spec))
    plan = measurement_plan(spec, load_workload(spec.workload), fixed_configuration(space))
    return StoredRivals("s", spec, plan, store)


def test_the_default_the_front_and_the_nearest_misses_run(studied: Store) -> None:
    rivals = rivals_of(SPEC, studied)
    assert rivals.race() is None  # nobody races outside the search
    with rivals.open():
        race = rivals.race()
    assert race is not None
    trials = studied.trials("s")
    whole = {t.number for t in trials if t.measurement and t.measurement.ended_early is None}
    running = {r.trial for r in race.rivals}
    assert {t.number for t in front(studied.study("s"), trials)} | {0} <= running <= whole
    assert race.slos == (Slo("p99_tpot_ms", 40.0), Slo("p99_ttft_ms", 2000.0))


@pytest.mark.parametrize(
    "change",
    [
        {"racing": False},
        {"request_rate": None, "concurrency": 8},
        {"cards": 2},
        {"objective": ("energy_per_output_token_j", "goodput_req_s")},
    ],
)
def test_nobody_races_where_they_cannot_be_compared(
    studied: Store, change: dict[str, object]
) -> None:
    asked = SPEC.model_dump(exclude_unset=True) | change
    rivals = rivals_of(StudySpec.model_validate(asked), studied)
    with rivals.open():
        assert rivals.race() is None
