from __future__ import annotations

import warnings

import optuna
import pytest
from optuna.samplers import RandomSampler, TPESampler
from study.scripted import SPACE, measurement

from tuner.errors import PreflightError
from tuner.records import Measurement
from tuner.slo import Slo
from tuner.study import proposals as module
from tuner.study.objective import Objective
from tuner.study.proposals import LAUNCH_OK, Proposals, make_sampler

SLOS = (Slo("p99_tpot_ms", 40.0), Slo("p99_ttft_ms", 500.0))
OBJECTIVES = (Objective.parse("energy_per_output_token_j"), Objective.parse("p99_tpot_ms"))


def proposals(storage: optuna.storages.BaseStorage, sampler: str = "tpe") -> Proposals:
    return Proposals(storage, "s", SPACE, SLOS, OBJECTIVES, sampler, 0)  # type: ignore[arg-type]


@pytest.fixture
def storage() -> optuna.storages.BaseStorage:
    return optuna.storages.InMemoryStorage()


def point(energy_j: float, tpot_ms: float) -> Measurement:
    return measurement(energy_per_output_token_j=energy_j, p99_tpot_ms=tpot_ms, p99_ttft_ms=100.0)


def test_every_trial_has_every_constraint_in_one_order(
    storage: optuna.storages.BaseStorage,
) -> None:
    asked = proposals(storage)
    asked.enqueue_baseline({})
    asked.tell_measured(asked.ask().number, point(1.0, 30.0))
    asked.tell_infeasible(asked.ask().number, "no memory")
    asked.tell_measured(asked.ask().number, point(2.0, 80.0))
    trials = optuna.load_study(study_name="s", storage=storage).trials
    orders = {tuple(t.constraints) for t in trials}
    assert orders == {(LAUNCH_OK, "p99_tpot_ms<=40", "p99_ttft_ms<=500")}
    feasible = [all(v <= 0 for v in t.constraints.values()) for t in trials]
    assert feasible == [True, False, False]


def test_what_is_imputed_is_the_worst_seen(storage: optuna.storages.BaseStorage) -> None:
    asked = proposals(storage)
    for energy_j, tpot_ms in ((1.0, 90.0), (3.0, 10.0)):
        asked.tell_measured(asked.ask().number, point(energy_j, tpot_ms))
    number = asked.ask().number
    asked.tell_infeasible(number, "no memory")
    trials = optuna.load_study(study_name="s", storage=storage).trials
    assert trials[number].values == [trials[1].values[0], trials[0].values[1]]


def test_a_first_trial_that_fails_has_finite_values(storage: optuna.storages.BaseStorage) -> None:
    asked = proposals(storage)
    asked.tell_infeasible(asked.ask().number, "no memory")
    (trial,) = optuna.load_study(study_name="s", storage=storage).trials
    assert trial.values == [0.0, 0.0]
    assert trial.constraints[LAUNCH_OK] > 0


def test_a_missing_metric_is_refused_not_imputed(storage: optuna.storages.BaseStorage) -> None:
    asked = proposals(storage)
    number = asked.ask().number
    with pytest.raises(ValueError, match="lacks a metric"):
        asked.tell_measured(number, measurement(p99_tpot_ms=1.0, p99_ttft_ms=1.0))
    assert asked.running() == [number]


def test_telling_goes_on_where_a_dead_tuner_stopped(storage: optuna.storages.BaseStorage) -> None:
    dead = proposals(storage)
    number = dead.ask().number
    trial = optuna.trial.Trial(dead._study, dead._trial(number)._trial_id)
    trial.set_constraint(LAUNCH_OK, -1.0)  # it died after the first of three constraints
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proposals(storage).tell_measured(number, point(1.0, 30.0))
    (told,) = optuna.load_study(study_name="s", storage=storage).trials
    assert len(told.constraints) == 3 and told.state is optuna.trial.TrialState.COMPLETE


def test_a_resumed_study_does_not_replay_its_start_points(
    storage: optuna.storages.BaseStorage,
) -> None:
    first = proposals(storage, "random")
    seen = []
    for _ in range(5):
        proposal = first.ask()
        seen.append(proposal.configuration)
        first.tell_measured(proposal.number, point(1.0, 30.0))
    resumed = proposals(storage, "random")
    again = []
    for _ in range(5):
        proposal = resumed.ask()
        again.append(proposal.configuration)
        resumed.tell_measured(proposal.number, point(1.0, 30.0))
    assert again != seen


def test_tpe_learns_to_leave_the_region_that_does_not_start(
    storage: optuna.storages.BaseStorage,
) -> None:
    asked = proposals(storage)
    crashed = []
    for _ in range(60):
        proposal = asked.ask()
        seqs = float(proposal.configuration.flags["max_num_seqs"])
        crashed.append(seqs >= 32)
        if crashed[-1]:
            asked.tell_infeasible(proposal.number, "no memory")
        else:
            asked.tell_measured(proposal.number, point(8 / seqs, 5 + seqs / 4))
    assert sum(crashed[30:]) < sum(crashed[:30])


def test_samplers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_sampler("random", 0), RandomSampler)
    assert isinstance(make_sampler("tpe", 0), TPESampler)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert isinstance(make_sampler("auto", 0), TPESampler)
    with pytest.raises(PreflightError, match=r"pip install 'tuner\[gp\]'"):
        make_sampler("gp", 0)
