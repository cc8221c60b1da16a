from __future__ import annotations

import warnings

import optuna
import pytest
from helpers.scripted import SPACE, measurement, named_constraints

from tuner.configuration import Configuration
from tuner.records import Measurement, Timing
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.spec.search_space import SearchSpace
from tuner.study.proposals.gp_sampler import SearchSampler
from tuner.study.proposals.proposals import Proposals
from tuner.study.proposals.search_task import LAUNCH_OK, Asker

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
    orders = {tuple(named_constraints(t)) for t in trials}
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
    assert len(named_constraints(told)) == 3 and told.state is optuna.trial.TrialState.COMPLETE


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


def learns_to_leave(storage: optuna.storages.BaseStorage, sampler: str) -> list[bool]:
    """Return of each of 14 trials whether it crashed; 20 of 45 configurations do."""
    asked = proposals(storage, sampler)
    crashed = []
    for _ in range(14):
        proposal = asked.ask()
        seqs = float(proposal.configuration.flags["max_num_seqs"])
        crashed.append(seqs >= 32)
        if crashed[-1]:
            asked.tell_infeasible(proposal.number, "no memory")
        else:
            asked.tell_measured(proposal.number, point(8 / seqs, 5 + seqs / 4))
    return crashed


def test_the_search_is_the_default_and_leaves_what_does_not_start(
    storage: optuna.storages.BaseStorage,
) -> None:
    crashed = learns_to_leave(storage, "gp")
    assert isinstance(proposals(storage, "gp")._study.sampler, SearchSampler)
    assert sum(crashed[7:]) <= 2


def test_the_search_never_asks_twice_for_what_is_sure(
    storage: optuna.storages.BaseStorage,
) -> None:
    asked = proposals(storage, "gp")
    seen = []
    for _ in range(12):
        proposal = asked.ask()
        seen.append(tuple(proposal.configuration.flags.values()))
        seqs = float(proposal.configuration.flags["max_num_seqs"])
        asked.tell_measured(proposal.number, point(8 / seqs, 5 + seqs / 4))
    assert len(set(seen)) == 12


def test_the_search_goes_on_when_everything_was_evaluated(
    storage: optuna.storages.BaseStorage,
) -> None:
    space = SearchSpace.model_validate(
        {"name": "small", "flags": {"max_num_seqs": {"type": "power_of_two", "low": 1, "high": 8}}}
    )
    asked = Proposals(storage, "s", space, SLOS, OBJECTIVES, "gp", 0)
    for _ in range(6):  # of four configurations
        asked.tell_measured(asked.ask().number, point(1.0, 30.0))
    assert asked.complete_count == 6


def test_a_resumed_search_proposes_what_it_would_have(
    storage: optuna.storages.BaseStorage,
) -> None:
    asked = proposals(storage, "gp")
    for _ in range(9):
        proposal = asked.ask()
        seqs = float(proposal.configuration.flags["max_num_seqs"])
        asked.tell_measured(proposal.number, point(8 / seqs, 5 + seqs / 4))
    proposal = asked.ask()
    asked.give_up(proposal.number)
    again = proposals(storage, "gp").ask()
    assert again.configuration == proposal.configuration


def test_time_is_told_and_the_warm_server_is_asked_for(
    storage: optuna.storages.BaseStorage,
) -> None:
    warm_for = []

    def is_warm(configuration: Configuration) -> bool:
        warm_for.append(configuration)
        return True

    asked = Proposals(storage, "s", SPACE, SLOS, OBJECTIVES, "gp", 0)
    asker = Asker(is_warm_for=is_warm)
    number = asked.ask(asker).number
    asked.note_timing(number, Timing(elapsed_s=250.0, launch_s=150.0))
    asked.tell_measured(number, point(1.0, 30.0))
    told = asked.proposal(number).configuration
    asked.ask(asker)
    assert warm_for == [told]
    (trial,) = asked._trials(optuna.trial.TrialState.COMPLETE)
    assert (trial.user_attrs["wall_s"], trial.user_attrs["launch_s"]) == (250.0, 150.0)


def test_the_gain_that_a_proposal_promised_is_kept_for_the_stop_rule(
    storage: optuna.storages.BaseStorage,
) -> None:
    learns_to_leave(storage, "gp")
    gains = proposals(storage, "gp").expected_gains()
    assert len(gains) == 14
    assert gains[0] is None  # a start point promises nothing
    assert any(gain is not None and gain > 0.0 for gain in gains[7:])
