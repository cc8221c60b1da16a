"""The loop's promises: budget, faults by class, and every line safe to die on."""

from __future__ import annotations

import asyncio

import optuna
import pytest
from helpers.scripted import (
    SPACE,
    infrastructure,
    named_constraints,
    physics,
)
from helpers.testbed import OWNER, SPEC, Died, Testbed
from optuna.trial import TrialState

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError
from tuner.records import Failure, FailureKind, Measurement, Source
from tuner.store import ProbeKind, Store
from tuner.study.loop import is_configurations_fault
from tuner.study.proposals.proposals import LAUNCH_OK


def test_the_first_trial_is_the_default_and_the_budget_is_met(store: Store) -> None:
    bed = Testbed(store)
    bed.run()
    rows = store.trials("s")
    assert [r.number for r in rows] == list(range(8))
    assert rows[0].baseline and rows[0].configuration == Configuration()
    assert not any(r.baseline for r in rows[1:])
    assert all(r.measurement for r in rows)
    assert bed.listener.shares[-1] == 1.0
    assert store.study("s").spent_s == pytest.approx(80.0)


def test_optuna_is_told_logs_and_constraints(store: Store) -> None:
    import math

    bed = Testbed(store)
    bed.run()
    first = bed.optuna_trials[0]
    # 128 sequences: 8/128 + 0.1 J/token and 37 ms
    assert first.values == pytest.approx([math.log(0.1625), math.log(37.0)])
    assert named_constraints(first) == pytest.approx(
        {LAUNCH_OK: -1.0, "p99_tpot_ms<=40": math.log(37 / 40)}
    )
    assert first.params["log2_max_num_seqs"] == 7


def test_hours_are_a_budget_and_the_last_trial_fits(store: Store) -> None:
    spec = SPEC.model_copy(update={"trials": None, "hours": 55 / 3600})
    bed = Testbed(store, spec=spec)
    bed.run()
    assert len(bed.evaluator.asked) == 5  # of 10 s each; a sixth would end after 60 s


def test_a_configurations_fault_is_told_as_infeasible_and_the_study_goes_on(store: Store) -> None:
    def script(configuration: Configuration, trial: int) -> Measurement | Failure:
        if trial in (2, 3):
            return Failure(FailureKind.CONFIGURATION, "no memory for the cache blocks")
        return physics(configuration, trial)

    bed = Testbed(store, script)
    bed.run()
    crashed = bed.optuna_trials[2]
    assert crashed.state is TrialState.COMPLETE
    assert crashed.constraints[LAUNCH_OK] > 0
    assert crashed.values == [max(t.values[i] for t in bed.optuna_trials[:2]) for i in (0, 1)]
    study = optuna.load_study(study_name="s", storage=store.optuna_storage())
    assert not {2, 3} & {t.number for t in study.best_trials}
    row = store.trials("s")[2]
    assert row.measurement is None and row.failure is not None
    assert row.failure.reason == "no memory for the cache blocks"
    assert len(bed.optuna_trials) == 8


def test_an_infrastructure_fault_tries_the_same_point_again_at_most_twice(store: Store) -> None:
    def script(configuration: Configuration, trial: int) -> Measurement | Failure:
        return infrastructure() if trial in (1, 2) else physics(configuration, trial)

    bed = Testbed(store, script)
    bed.run()
    points = [c for _, c in bed.evaluator.asked]
    assert points[1] == points[2] == points[3] != points[4]
    states = [t.state for t in bed.optuna_trials]
    assert states.count(TrialState.FAIL) == 2
    assert states.count(TrialState.COMPLETE) == 8


def test_a_machine_that_keeps_failing_needs_an_operator(store: Store) -> None:
    def script(configuration: Configuration, trial: int) -> Measurement | Failure:
        return infrastructure() if trial >= 1 else physics(configuration, trial)

    bed = Testbed(store, script)
    with pytest.raises(OperatorNeededError, match="memory held by somebody else") as caught:
        bed.run()
    assert "tuner resume s" in str(caught.value)
    assert len(bed.evaluator.asked) == 1 + 3 + 3
    assert not [t for t in bed.optuna_trials if t.state is TrialState.RUNNING]

    bed.evaluator.script = physics  # somebody fixed it
    bed.run()
    assert [t.state for t in bed.optuna_trials].count(TrialState.COMPLETE) == 8


def test_a_default_that_could_not_be_measured_comes_first_after_the_mending(store: Store) -> None:
    bed = Testbed(store, lambda configuration, trial: infrastructure())
    with pytest.raises(OperatorNeededError):
        bed.run()
    bed.evaluator.script = physics
    asked = len(bed.evaluator.asked)
    bed.run()
    assert bed.evaluator.asked[asked][1] == Configuration()
    assert any(r.baseline and r.measurement for r in store.trials("s"))


def test_a_kill_inside_ask_does_not_move_the_default(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = Testbed(store)
    run = bed.start()
    suggested: list[str] = []
    original = optuna.trial.Trial._suggest

    def dying(self: optuna.trial.Trial, name: str, distribution: object) -> object:
        if suggested:
            raise Died
        suggested.append(name)
        return original(self, name, distribution)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "_suggest", dying)
        with pytest.raises(Died):
            asyncio.run(run.run())
    assert len(bed.optuna_trials[0].params) == 1
    bed.run()
    told = next(t for t in bed.optuna_trials if t.state is TrialState.COMPLETE)
    assert told.user_attrs["baseline"] is True
    assert told.params == SPACE.baseline_parameters({})


def test_what_is_shown_is_what_was_stored(store: Store) -> None:
    def script(configuration: Configuration, trial: int) -> Measurement | Failure:
        whole = physics(configuration, trial)
        assert isinstance(whole, Measurement)
        kept = {k: v for k, v in whole.metrics.items() if k != "p99_tpot_ms"}
        return Measurement(kept, 1.0, 2.0, Source.MEASURED, Source.MEASURED)

    bed = Testbed(store, script, SPEC.model_copy(update={"trials": 1}))
    bed.run()
    assert all(isinstance(result, Failure) for _, result in bed.listener.ended)


def test_an_unstable_point_is_retried_once_and_then_its_own_fault(store: Store) -> None:
    def script(configuration: Configuration, trial: int) -> Measurement | Failure:
        if trial in (1, 2):
            return Failure(FailureKind.UNSTABLE, "the server died")
        return physics(configuration, trial)

    bed = Testbed(store, script)
    bed.run()
    states = [t.state for t in bed.optuna_trials[:3]]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert bed.optuna_trials[2].constraints[LAUNCH_OK] > 0


def test_a_metric_that_is_needed_and_missing_is_a_failure(store: Store) -> None:
    def script(configuration: Configuration, trial: int) -> Measurement | Failure:
        whole = physics(configuration, trial)
        assert isinstance(whole, Measurement)
        if trial not in (1, 2):
            return whole
        kept = {k: v for k, v in whole.metrics.items() if k != "p99_tpot_ms"}
        return Measurement(kept, 1.0, 2.0, Source.MEASURED, Source.MEASURED)

    bed = Testbed(store, script)
    bed.run()
    failure = store.trials("s")[1].failure
    assert failure is not None and "p99_tpot_ms" in failure.reason


def test_retries_of_the_baseline_stay_the_baseline(store: Store) -> None:
    def script(configuration: Configuration, trial: int) -> Measurement | Failure:
        return infrastructure() if trial == 0 else physics(configuration, trial)

    bed = Testbed(store, script)
    bed.run()
    assert [r.number for r in store.trials("s") if r.baseline] == [0, 1]
    assert bed.evaluator.asked[1] == (1, Configuration())


@pytest.mark.parametrize(
    ("step", "when"),  # after one of these is before the next, for all that is stored
    [
        ("begin_trial", "before"),
        ("evaluate", "before"),
        ("save_measurement", "before"),
        ("tell_measured", "before"),
        ("tell_measured", "after"),
    ],
)
@pytest.mark.parametrize("trial", [0, 3])
def test_death_at_any_step_loses_at_most_one_evaluation(
    store: Store, step: str, when: str, trial: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = Testbed(store)
    run = bed.start()
    owner = {
        "begin_trial": store,
        "evaluate": bed.evaluator,
        "save_measurement": store,
        "tell_measured": run._proposals,
    }[step]
    original = getattr(owner, step)
    number_at = 1 if step in ("begin_trial", "save_measurement", "evaluate") else 0

    def number_of(args: tuple[object, ...]) -> object:
        return args[number_at]

    async def dying_evaluate(*args: object) -> object:
        if number_of(args) == trial:
            raise Died
        return await original(*args)

    def dying(*args: object, **kwargs: object) -> object:
        if when == "before" and number_of(args) == trial:
            raise Died
        result = original(*args, **kwargs)
        if number_of(args) == trial:
            raise Died
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, dying_evaluate if step == "evaluate" else dying)
        with pytest.raises(Died):
            asyncio.run(run.run())

    bed.run()
    states = [t.state for t in bed.optuna_trials]
    assert TrialState.RUNNING not in states and TrialState.WAITING not in states
    assert states.count(TrialState.COMPLETE) == 8
    assert len(bed.evaluator.asked) <= 9
    rows = store.trials("s")
    assert sum(r.measurement is not None for r in rows) == 8
    assert not [r for r in rows if r.state == "running"]
    told = {t.number for t in bed.optuna_trials if t.state is TrialState.COMPLETE}
    assert told == {r.number for r in rows if r.measurement is not None}


def test_reconciling_twice_queues_a_point_once(store: Store) -> None:
    bed = Testbed(store)
    run = bed.start()
    proposal = run._proposals.ask()
    store.begin_trial("s", proposal.number, proposal.configuration, baseline=True, owner=OWNER)
    run.reconcile()
    run.reconcile()
    states = [t.state for t in bed.optuna_trials]
    assert states == [TrialState.FAIL, TrialState.WAITING]


def test_a_probe_that_was_interrupted_is_none(store: Store) -> None:
    """Also of a study that confirms nothing, whose cards measure the default all the same."""
    bed = Testbed(store)
    bed.run()
    store.repeats.begin("s", 0, ProbeKind.CARD, OWNER)
    bed.start().reconcile()
    assert store.repeats.every("s") == []
    assert any("repeat of trial 0 was interrupted" in note for note in bed.listener.notes)


def test_whose_fault() -> None:
    unstable = Failure(FailureKind.UNSTABLE, "x")
    assert not is_configurations_fault(unstable, 1)
    assert is_configurations_fault(unstable, 2)
    assert is_configurations_fault(Failure(FailureKind.CONFIGURATION, "x"), 1)
    assert not is_configurations_fault(infrastructure(), 3)
