from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.night_rows import trial_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.analysis.outcomes import baseline_of, emulated, feasible, front, slos_of
from tuner.records import Measurement, Source
from tuner.slo import Slo
from tuner.store import Store, StudyIdentity, TrialRow

POSITIVE = st.floats(0.001, 1000.0)
METRICS = st.fixed_dictionaries(
    {},
    optional={
        "energy_per_output_token_j": POSITIVE,
        "p99_tpot_ms": POSITIVE,
        "output_throughput_tok_s": POSITIVE,
    },
)


trial_lists = st.lists(METRICS | st.none(), max_size=12).map(
    lambda found: [trial_with(i, metrics) for i, metrics in enumerate(found)]
)
SLO = Slo("p99_tpot_ms", 100.0)
OBJECTIVES = ("energy_per_output_token_j", "output_throughput_tok_s:max")


def cost(trial: TrialRow) -> tuple[float, float]:
    assert trial.measurement is not None
    metrics = trial.measurement.metrics
    return metrics["energy_per_output_token_j"], -metrics["output_throughput_tok_s"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it is a constant
@given(trials=trial_lists)
def test_the_front_is_feasible_complete_and_undominated(
    identity: StudyIdentity, trials: list[TrialRow]
) -> None:
    found = front(identity, trials, [SLO], OBJECTIVES)
    placed = [
        t
        for t in feasible(trials, [SLO])
        if t.measurement and {o.partition(":")[0] for o in OBJECTIVES} <= set(t.measurement.metrics)
    ]
    assert {t.number for t in found} <= {t.number for t in placed}
    for t in placed:
        beaten = any(
            cost(o) != cost(t) and all(a <= b for a, b in zip(cost(o), cost(t), strict=True))
            for o in placed
        )
        kept = cost(t) in [cost(f) for f in found]
        assert kept is not beaten
    for t in found:
        assert t.measurement is not None
        assert t.measurement.metrics["p99_tpot_ms"] <= 100.0


def test_the_night(store: Store, identity: StudyIdentity) -> None:
    trials = store.trials("night")
    assert [t.number for t in front(identity, trials)] == [2, 1, 0]
    assert [t.number for t in front(identity, trials, [Slo("p99_tpot_ms", 46.0)])] == [1, 0]
    only_energy = front(identity, trials, [], ["energy_per_output_token_j"])
    assert [t.number for t in only_energy] == [3]


def test_the_baseline_is_on_the_front_only_if_it_belongs(
    store: Store, identity: StudyIdentity
) -> None:
    found = front(identity, store.trials("night"), objectives=["energy_per_output_token_j"])
    assert [t.number for t in found] == [2]


def test_a_failed_trial_with_a_measurement_is_neither_feasible_nor_on_the_front(
    identity: StudyIdentity,
) -> None:
    trial = trial_with(1, {"energy_per_output_token_j": 0.01, "p99_tpot_ms": 1.0}, failed=True)
    assert feasible([trial], []) == []
    assert front(identity, [trial]) == []


def test_the_baseline_is_the_first_measured_or_the_last_tried() -> None:
    failed, later = trial_with(0, None, failed=True), trial_with(0, {"mean_power_w": 1.0})
    assert baseline_of([failed, later]) is later
    assert baseline_of([failed, failed]) is failed
    drifted = trial_with(0, {"mean_power_w": 9.0}, failed=True)
    assert baseline_of([drifted, later]) is later
    assert baseline_of([trial_with(1, None)]) is None


def test_given_slos_replace_those_of_the_study(identity: StudyIdentity) -> None:
    assert slos_of(identity) == (Slo("p99_tpot_ms", 50.0),)
    assert slos_of(identity, []) == ()


@pytest.mark.parametrize("source", Source)
def test_one_emulated_trial_makes_the_whole_emulated(
    identity: StudyIdentity, source: Source
) -> None:
    found = Measurement({}, 0.0, 1.0, latency_source=Source.MEASURED, energy_source=source)
    trials = [trial_with(0, {}), replace(trial_with(1, {}), measurement=found)]
    assert emulated(identity, trials) == (("energy",) if source is Source.EMULATED else ())
