"""What the tuner relies on of Optuna's private parts; each part must do this in every version."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tuner.study.proposals.optuna_compat import contains, show_constraints, writable_trial


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(directions=["minimize"])


def test_a_trial_that_was_asked_for_elsewhere_takes_attributes(study: optuna.Study) -> None:
    number = study.ask({"x": FloatDistribution(0.0, 1.0)}).number
    (frozen,) = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    trial = writable_trial(study, frozen)
    trial.set_user_attr("reason", "told")
    trial.set_constraint("slo", -0.5)
    study.tell(number, [1.0])
    (ended,) = study.trials
    assert ended.user_attrs == {"reason": "told"}
    assert ended.constraints == {"slo": -0.5}


def test_constraints_are_where_the_dashboard_looks_for_them(study: optuna.Study) -> None:
    study.ask({"x": FloatDistribution(0.0, 1.0)})
    show_constraints(study, study.trials[0], (1.0, -1.0))
    assert study.trials[0].system_attrs["constraints"] == [1.0, -1.0]


def test_the_parameters_of_a_queued_trial_are_known_before_it_is_asked_for(
    study: optuna.Study,
) -> None:
    study.enqueue_trial({"x": 0.25})
    assert study.trials[0].system_attrs["fixed_params"] == {"x": 0.25}


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (IntDistribution(2, 8, step=2), [2, 8], [1, 3, 10]),
        (FloatDistribution(0.5, 1.0), [0.5, 0.7, 1.0], [0.4, 1.1]),
        (FloatDistribution(0.0, 1.0, step=0.25), [0.0, 0.75], [0.3]),
        (CategoricalDistribution(("auto", "fp8")), ["auto"], ["int8"]),
    ],
)
def test_a_distribution_knows_what_it_holds(distribution, inside, outside) -> None:
    assert all(contains(distribution, value) for value in inside)
    assert not any(contains(distribution, value) for value in outside)
